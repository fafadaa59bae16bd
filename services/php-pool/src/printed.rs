//! What processes print, and which request each line belongs to.
//!
//! A process writes its standard output and error into two pipes that another thread reads, and comes to them when the process
//! may work on its next call already. So where a call ends, what is unread then is noted as its own, by how far the pipe will
//! have been read. That costs two system calls, and it needs calls that begin one by one: only a pool that prints pays for it,
//! and its calls do not wait in the pipes of busy processes. The first lines after a long silence go by when they are read.

use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::unix::pipe;

use crate::process::Work;

/// Where a process prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout = 0,
    Stderr = 1,
}

impl Channel {
    pub(crate) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];
}

/// What one process prints.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pipes: OnceLock<[pipe::Receiver; 2]>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// What the process works on, or worked on last.
    work: Option<Work>,
    shares: [Shares<Work>; 2],
}

impl Printed {
    /// Where it is read from: standard output and error, in the event loop that reads them.
    pub(crate) fn watch(&self, pipes: [pipe::Receiver; 2]) {
        // A process is watched once.
        let _ = self.pipes.set(pipes);
    }

    /// See [`crate::process::ProcessInfo::work`].
    pub(crate) fn work(&self) -> Option<Work> {
        self.told.lock().work.clone()
    }

    /// The process is about to get its next call. With `exact`, what it has printed until now belongs to the last one.
    pub(crate) fn begin(&self, work: Work, exact: bool) {
        let mut told = self.told.lock();
        let last = told.work.replace(work);
        if let (true, Some(last), Some(pipes)) = (exact, last, self.pipes.get()) {
            for (pipe, shares) in pipes.iter().zip(&mut told.shares) {
                // Only of something that is no pipe can it not be told.
                shares.end(rustix::io::ioctl_fionread(pipe).unwrap_or(0), &last);
            }
        }
    }

    /// Waits for what it prints and puts it behind what is in `buffer`; nothing comes at the end.
    pub(crate) async fn read(&self, channel: Channel, buffer: &mut BytesMut) -> io::Result<usize> {
        let Some(pipe) = self.pipes.get().and_then(|pipes| pipes.get(channel as usize)) else { return Ok(0) };
        loop {
            pipe.readable().await?;
            // What is in the pipe and what was taken out of it are told together, or neither.
            let mut told = self.told.lock();
            match pipe.try_read_buf(buffer) {
                Ok(read) => {
                    told.shares[channel as usize].read += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The request that what stands at `place` of all it printed belongs to. Places are asked for in their order.
    pub(crate) fn work_at(&self, channel: Channel, place: u64) -> Option<Work> {
        let told = &mut *self.told.lock();
        told.shares[channel as usize].owner(place).or(told.work.as_ref()).cloned()
    }
}

/// How far what was printed belongs to calls that are over.
#[derive(Debug)]
struct Shares<T> {
    /// Bytes read so far.
    read: u64,
    /// Up to which place the last call that ended printed.
    ended: u64,
    /// Of the calls that printed something not yet asked for, where each one's share ends. One per unread byte at most, and a
    /// pipe holds 64 KiB.
    ends: VecDeque<(u64, T)>,
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { read: 0, ended: 0, ends: VecDeque::new() }
    }
}

impl<T: Clone> Shares<T> {
    /// A call ended, with so many bytes unread.
    fn end(&mut self, unread: u64, call: &T) {
        let end = self.read + unread;
        if end > self.ended {
            self.ended = end;
            self.ends.push_back((end, call.clone()));
        }
    }

    /// The call that has ended which the byte at `place` belongs to; `None`: that of the one that runs.
    fn owner(&mut self, place: u64) -> Option<&T> {
        while self.ends.front().is_some_and(|(end, _)| *end <= place) {
            self.ends.pop_front();
        }
        self.ends.front().map(|(_, call)| call)
    }
}

/// Whether the processes of a pool print anything, of late.
#[derive(Debug, Default)]
pub(crate) struct Prints {
    of_late: AtomicBool,
    since_look: AtomicBool,
}

impl Prints {
    /// A process has printed something.
    pub(crate) fn seen(&self) {
        self.since_look.store(true, Ordering::Relaxed);
        self.of_late.store(true, Ordering::Release);
    }

    /// Whether one has since the look before the last.
    pub(crate) fn of_late(&self) -> bool {
        self.of_late.load(Ordering::Acquire)
    }

    /// Forgets what was seen before the last look.
    pub(crate) fn look(&self) {
        let seen = self.since_look.swap(false, Ordering::Relaxed);
        self.of_late.store(seen, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Print(u8),
        Read(u8),
        Next,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..40_u8).prop_map(Step::Print),
            (0..60_u8).prop_map(Step::Read),
            Just(Step::Next),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn each_byte_belongs_to_the_call_that_printed_it(steps in steps()) {
            let mut shares = Shares::default();
            let (mut pipe, mut call) = (VecDeque::new(), 0_u32);
            for step in steps {
                match step {
                    Step::Print(bytes) => pipe.extend(std::iter::repeat_n(call, usize::from(bytes))),
                    Step::Next => {
                        shares.end(pipe.len() as u64, &call);
                        call += 1;
                    }
                    Step::Read(most) => {
                        let from = shares.read;
                        let bytes: Vec<u32> = pipe.drain(..usize::from(most).min(pipe.len())).collect();
                        shares.read += bytes.len() as u64;
                        for (place, printed_by) in (from..).zip(bytes) {
                            prop_assert_eq!(*shares.owner(place).unwrap_or(&call), printed_by);
                        }
                    }
                }
            }
            prop_assert!(shares.ends.len() <= pipe.len() + 1);
        }
    }

    #[test]
    fn a_pool_prints_until_nothing_came_between_two_looks() {
        let prints = Prints::default();
        assert!(!prints.of_late());
        prints.seen();
        prints.look();
        assert!(prints.of_late());
        prints.look();
        assert!(!prints.of_late());
    }
}
