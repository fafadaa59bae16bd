//! Frames that stand in a process's pipe and that it has not read: what is taken back out of there was not started, and never is.
//!
//! A pipe may have more than one reader, and each frame is a packet that only one of them gets.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags};

use super::{Pipes, Process};
use crate::process::Fate;
use crate::protocol::{PACKET, call_number};

impl Process {
    /// Takes the frames back out of its pipe that it has not read yet, of the calls with these numbers that stand behind the running
    /// one. Those will not be run here.
    ///
    /// The process may read one between two that are read here: what was taken is told by number. A process that has had no core yet
    /// has not even read the running call, which is put back; unless it has read another one since, whose reply would be taken for
    /// that of the running call. Then it is killed.
    pub(crate) fn take_back(&mut self, behind: &[u64]) -> TakenBack {
        let nothing = TakenBack::default();
        let Some(pipe) = self.other_end() else { return nothing };
        let mut frame = [0; PACKET];
        let mut taken = nothing;
        let mut running = None;
        while let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut frame)) {
            let frame = frame.get(..length).unwrap_or_default();
            match call_number(frame).filter(|number| behind.contains(number)) {
                Some(number) => taken.calls.push(number),
                None => running = Some(frame.to_vec()),
            }
        }
        match running {
            // There is room, and nothing else in the pipe. If the process is gone, whoever reads its replies finds out.
            Some(running) if taken.calls.len() == behind.len() => {
                let _ = self.try_write(&running);
            }
            Some(_) => {
                self.info.kill(Fate::Died);
                self.is_torn = true;
                taken.is_torn = true;
            }
            None => {}
        }
        taken
    }

    /// Takes the call with this number back from a process that is gone, if it had read nothing of it: it ended as it cleared up
    /// after the call before. A frame of several packets begins with the one that has its number.
    pub(crate) fn take_unread(&mut self, number: u64) -> bool {
        let Some(pipe) = self.other_end() else { return false };
        let mut packet = [0; PACKET];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut packet)).unwrap_or(0);
        let is_unread = packet.get(..length).and_then(call_number) == Some(number);
        self.info.unread.store(is_unread, Ordering::Release);
        is_unread
    }

    /// The end of its pipe that it reads from.
    fn other_end(&self) -> Option<OwnedFd> {
        let Pipes::At { input, .. } = &self.pipes else { return None };
        let path = format!("/proc/self/fd/{}", input.as_fd().as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).ok()
    }
}

/// What came back out of a pipe.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    /// The numbers of the calls, which never started.
    pub(crate) calls: Vec<u64>,
    /// The process has begun with another call than the one whose reply is waited for, and is killed.
    pub(crate) is_torn: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use rustix::pipe::{PipeFlags, pipe_with};
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme, Version};

    use super::*;
    use crate::process::{Gone, ProcessInfo, Work};
    use crate::protocol::{CallHeader, ToPhp};

    fn frame(id: u64) -> [u8; crate::protocol::CALL_HEADER] {
        CallHeader { kind: ToPhp::Call, flags: 0, function: 0, meta_len: 0, body_len: 0, deadline_ns: 0, id }.encode()
    }

    /// What is taken back where the pipe holds the frames of `unread` and those of 1, 2 and 3 stand behind the running call, 0; and
    /// what the pipe holds then.
    async fn taken(unread: &[u64]) -> (TakenBack, Vec<u64>, Process) {
        let frames: Vec<_> = unread.iter().map(|id| frame(*id)).collect();
        let (reader, mut process) = process(&frames.iter().map(|frame| &frame[..]).collect::<Vec<_>>());
        let taken = process.take_back(&[1, 2, 3]);
        let (mut left, mut buffer) = (Vec::new(), [0; PACKET]);
        while let Ok(length @ 1..) = rustix::io::read(&reader, &mut buffer) {
            left.extend(call_number(&buffer[..length]));
        }
        (taken, left, process)
    }

    /// The process may read a frame between two that are taken: replies were taken for another call's.
    #[tokio::test]
    async fn what_is_taken_back_is_told_by_number() {
        for (unread, back) in [(&[2, 3][..], &[2, 3][..]), (&[1, 2, 3], &[1, 2, 3]), (&[1, 3], &[1, 3]), (&[], &[])] {
            let (taken, left, process) = taken(unread).await;
            assert_eq!((&*taken.calls, taken.is_torn, &*left), (back, false, &[][..]), "{unread:?}");
            assert_eq!(process.info.fate(), Fate::Serving);
        }
    }

    #[tokio::test]
    async fn a_running_call_that_was_not_read_is_put_back() {
        let (taken, left, process) = taken(&[0, 1, 2, 3]).await;
        assert_eq!((&*taken.calls, taken.is_torn, &*left), (&[1, 2, 3][..], false, &[0][..]));
        assert_eq!(process.info.fate(), Fate::Serving);
    }

    /// It works on 1, and the reply of 0 is waited for.
    #[tokio::test]
    async fn a_process_that_has_begun_with_another_call_is_not_believed() {
        let (taken, left, mut process) = taken(&[0, 2, 3]).await;
        assert_eq!((&*taken.calls, taken.is_torn, &*left), (&[2, 3][..], true, &[][..]));
        assert_ne!(process.info.fate(), Fate::Serving);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        assert_eq!(process.poll_frame(context), Poll::Ready(Err(Gone::Closed)));
    }

    /// A process that works on the call 7, and whose pipe holds what `unread` writes.
    fn process(unread: &[&[u8]]) -> (OwnedFd, Process) {
        let (reader, input) = pipe_with(PipeFlags::DIRECT | PipeFlags::NONBLOCK).unwrap();
        let (output, _) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut process = Process::new(Arc::new(ProcessInfo::new(1, 0)), Arc::default(), 9, input, output);
        process.settle(0).unwrap();
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Http,
            method: "GET",
            target: "/",
            authority: "example.test",
            remote_addr: "192.0.2.1",
            remote_port: "4711",
            local_addr: "127.0.0.1",
            local_port: "8080",
        };
        let head = RequestHeadBuilder::default().finish(&parts).unwrap();
        process.info.set_work(Work { head, trace: None });
        for frame in unread {
            assert_eq!(process.try_write(frame).unwrap(), frame.len());
        }
        (reader, process)
    }

    /// Whether the call 7 is found unread, and so is not told as what the process died of.
    fn is_unread(unread: &[&[u8]]) -> bool {
        let (_reader, mut process) = process(unread);
        let is_unread = process.take_unread(7);
        assert_eq!(process.info.last_work().is_none(), is_unread);
        is_unread
    }

    #[tokio::test]
    async fn only_a_call_that_stands_in_the_pipe_with_its_beginning_was_not_read() {
        let long = [&frame(7)[..], &[0; 2 * PACKET]].concat();
        assert!(is_unread(&[&frame(7)]) && is_unread(&[&frame(7), &frame(8)]) && is_unread(&[&long]));
        // What is behind it, or the rest of it, is there when it was read.
        assert!(!is_unread(&[]) && !is_unread(&[&frame(8)]) && !is_unread(&[&long[PACKET..]]));
    }
}
