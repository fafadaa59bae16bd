//! One PHP process, as the data path has it: its two pipes, what was read ahead, its clock.

mod unread;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::unix::pipe;
use troupe_wire::head::RequestHead;
use troupe_wire::trace::TraceContext;

use crate::alarm::Alarm;
use crate::functions::Functions;
use crate::printed::Printed;
use crate::protocol::{FrameHeader, REPLY_HEADER};

/// Room for one read: a small reply with its head in one system call.
const READ_SIZE: usize = 8 * 1024;
/// A body up to here is copied out, so that the read buffer is used again; a longer one takes the buffer with it.
const COPIED_BODY: usize = 4 * 1024;
/// What is kept of what a process wrote last to its standard error.
const TAIL: usize = 2 * 1024;

/// How long the calls of a new process are taken to take: too long for another one to wait behind them by choice.
const UNKNOWN_MICROS: u32 = 1_000;

/// Why a process is gone, or is about to be. The first reason that is found stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    /// Nothing is wrong with it.
    Serving = 0,
    /// It had not been asked to end.
    Died,
    /// Its call took too long.
    TimedOut,
    /// It took more memory than `memory_hard`.
    Memory,
    /// What it sent was no frame.
    Protocol,
    /// It said it would end: calls spent, memory_soft, or code that cannot be run again in it.
    Recycled,
    /// The reader of its stream went away.
    StreamGone,
    /// The caller went away while its request was half written.
    Cancelled,
    /// It was idle and not needed.
    Idle,
    /// The pool's zygote died, or the pool stops.
    Stopped,
    /// The pool is renewed: a new process takes its calls.
    Replaced,
}

impl Fate {
    pub(crate) const ALL: [Self; 11] = [
        Self::Serving,
        Self::Died,
        Self::TimedOut,
        Self::Memory,
        Self::Protocol,
        Self::Recycled,
        Self::StreamGone,
        Self::Cancelled,
        Self::Idle,
        Self::Stopped,
        Self::Replaced,
    ];

    /// The name in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Died => "died",
            Self::TimedOut => "timeout",
            Self::Memory => "memory",
            Self::Protocol => "protocol",
            Self::Recycled => "recycled",
            Self::StreamGone => "stream-gone",
            Self::Cancelled => "cancelled",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Replaced => "replaced",
        }
    }

    /// Whether it is a failure of the process, not a planned end.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Serving | Self::Died | Self::TimedOut | Self::Memory | Self::Protocol)
    }
}

/// What a process works on, for those who tell of it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) head: RequestHead,
    pub(crate) trace: Option<TraceContext>,
}

/// What all threads know of a process.
#[derive(Debug)]
pub(crate) struct ProcessInfo {
    /// Its number within the pool.
    pub(crate) id: u32,
    /// Which renewal of the pool it came from.
    pub(crate) epoch: u32,
    /// Its process id, which is its process group's too; 0 until it is known.
    pid: AtomicI32,
    fate: AtomicU8,
    /// Microseconds that its whole calls took, by its own clock. Written by the thread that has it.
    worked: AtomicU64,
    current: Mutex<Option<Work>>,
    /// It is gone, and never read the request that it was given last.
    unread: AtomicBool,
    pub(crate) printed: Printed,
    tail: Mutex<Vec<u8>>,
}

impl ProcessInfo {
    pub(crate) fn new(id: u32, epoch: u32) -> Self {
        let (current, printed, tail) = (Mutex::new(None), Printed::default(), Mutex::new(Vec::new()));
        let (pid, fate, worked) = (AtomicI32::new(0), AtomicU8::new(Fate::Serving as u8), AtomicU64::new(0));
        Self { id, epoch, pid, fate, worked, current, unread: AtomicBool::new(false), printed, tail }
    }

    /// Its process id, 0 until it is known.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Acquire)
    }

    pub(crate) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::Release);
    }

    /// Microseconds that its calls took so far, without the one that runs.
    pub(crate) fn worked(&self) -> u64 {
        self.worked.load(Ordering::Relaxed)
    }

    /// Why it is gone.
    pub(crate) fn fate(&self) -> Fate {
        Fate::ALL.get(usize::from(self.fate.load(Ordering::Acquire))).copied().unwrap_or(Fate::Died)
    }

    /// Gives it a reason to be gone, unless it has one; says which it is.
    pub(crate) fn doom(&self, fate: Fate) -> Fate {
        let serving = Fate::Serving as u8;
        match self.fate.compare_exchange(serving, fate as u8, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fate,
            Err(_) => self.fate(),
        }
    }

    /// Asks it and whatever it started to end.
    pub(crate) fn ask_to_end(&self, fate: Fate) {
        self.doom(fate);
        if let Some(pid) = Pid::from_raw(self.pid()) {
            // Gone already: as it should be.
            let _ = rustix::process::kill_process_group(pid, Signal::TERM);
        }
    }

    /// Whether it, or something that it started and that stayed in its group, is there.
    pub(crate) fn has_group(&self) -> bool {
        Pid::from_raw(self.pid()).is_some_and(|pid| rustix::process::test_kill_process_group(pid).is_ok())
    }

    /// Ends it and whatever it started, at once.
    pub(crate) fn kill(&self, fate: Fate) {
        self.doom(fate);
        if let Some(pid) = Pid::from_raw(self.pid()) {
            // Gone already: as it should be.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// The request it works on, or worked on last.
    pub(crate) fn work(&self) -> Option<Work> {
        self.current.lock().clone()
    }

    /// The request that it may have ended of; `None` where it had not begun with the one that it was given last.
    pub(crate) fn last_work(&self) -> Option<Work> {
        if self.unread.load(Ordering::Acquire) { None } else { self.work() }
    }

    pub(crate) fn set_work(&self, work: Work) {
        *self.current.lock() = Some(work);
    }

    /// Keeps a line of its standard error.
    pub(crate) fn keep_line(&self, line: &str) {
        let mut tail = self.tail.lock();
        let line = line.as_bytes();
        tail.extend_from_slice(&line[line.len().saturating_sub(TAIL)..]);
        tail.push(b'\n');
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }

    /// The last it wrote to its standard error.
    pub(crate) fn tail(&self) -> String {
        String::from_utf8_lossy(&self.tail.lock()).trim_end().to_owned()
    }
}

/// A process between two calls, or in one. Whoever has it is the only one that may talk to it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) info: Arc<ProcessInfo>,
    /// The functions of its generation, with the indices it knows them by.
    pub(crate) functions: Arc<Functions>,
    /// Calls it may still take.
    pub(crate) calls_left: u32,
    /// The number of the last call that was written to it. The first is drawn: by it PHP marks its output, into which clients may get
    /// some text.
    calls: u64,
    /// Since when it has been idle.
    pub(crate) idle_since: Instant,
    /// How long its calls take, in microseconds: a moving average of about the last eight.
    pub(crate) usual_micros: u32,
    pipes: Pipes,
    buffer: BytesMut,
    alarm: Alarm,
    /// It has begun with another call than the one whose reply is waited for: nothing that it says is believed.
    is_torn: bool,
}

#[derive(Debug)]
enum Pipes {
    /// In no event loop.
    Away { input: OwnedFd, output: OwnedFd },
    /// In the event loop of a thread.
    At { thread: usize, input: pipe::Sender, output: pipe::Receiver },
    /// Between the two; an error on the way leaves it so.
    Lost,
}

/// The process cannot be read from or written to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its end of the pipe is closed.
    Closed,
    /// What it sent was no frame.
    BadFrame,
}

impl Process {
    pub(crate) fn new(
        info: Arc<ProcessInfo>,
        functions: Arc<Functions>,
        calls_left: u32,
        input: OwnedFd,
        output: OwnedFd,
    ) -> Self {
        let pipes = Pipes::Away { input, output };
        let (buffer, alarm, is_torn) = (BytesMut::new(), Alarm::default(), false);
        Self {
            info,
            functions,
            calls_left,
            calls: fastrand::u64(..),
            idle_since: Instant::now(),
            usual_micros: UNKNOWN_MICROS,
            pipes,
            buffer,
            alarm,
            is_torn,
        }
    }

    /// Brings it into the event loop of this thread, which has the index `here`.
    pub(crate) fn settle(&mut self, here: usize) -> io::Result<()> {
        if matches!(&self.pipes, Pipes::At { thread, .. } if *thread == here) {
            return Ok(());
        }
        let (input, output) = match std::mem::replace(&mut self.pipes, Pipes::Lost) {
            Pipes::Away { input, output } => (input, output),
            Pipes::At { input, output, .. } => (input.into_nonblocking_fd()?, output.into_nonblocking_fd()?),
            Pipes::Lost => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let input = pipe::Sender::from_owned_fd_unchecked(input)?;
        let output = pipe::Receiver::from_owned_fd_unchecked(output)?;
        self.alarm = Alarm::default();
        self.pipes = Pipes::At { thread: here, input, output };
        Ok(())
    }

    /// The number of the call that is written to it next.
    pub(crate) fn next_call(&mut self) -> u64 {
        self.calls = self.calls.wrapping_add(1);
        self.calls
    }

    /// Writes what the pipe takes now. Past tokio, which would first wait for the event loop to say that a pipe new to it can
    /// be written to; what it knows of the pipe is looked up again by [`Process::poll_write`].
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.pipes {
            Pipes::At { input, .. } => Ok(rustix::io::retry_on_intr(|| rustix::io::write(input, bytes))?),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Writes what the pipe takes, waiting while it takes nothing.
    pub(crate) fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.pipes {
            Pipes::At { input, .. } => Pin::new(input).poll_write(context, bytes),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Ready when a whole frame stands in the buffer; [`Process::head`] and [`Process::take`] give it.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<FrameHeader, Gone>> {
        if self.is_torn {
            return Poll::Ready(Err(Gone::Closed));
        }
        loop {
            let missing = match FrameHeader::decode(&self.buffer) {
                Err(error) => {
                    tracing::debug!(process = self.info.id, %error, "a process broke the protocol");
                    return Poll::Ready(Err(Gone::BadFrame));
                }
                Ok(Some(header)) => match (REPLY_HEADER + header.len).checked_sub(self.buffer.len()) {
                    None | Some(0) => return Poll::Ready(Ok(header)),
                    Some(missing) => missing,
                },
                Ok(None) => 0,
            };
            self.buffer.reserve(missing.max(READ_SIZE));
            if ready!(self.poll_read(context)).unwrap_or(0) == 0 {
                return Poll::Ready(Err(Gone::Closed));
            }
        }
    }

    /// tokio's own read, not `try_read`: it notes that a read which filled less than its buffer emptied the pipe, and so
    /// saves the read that would only find that out. The future holds nothing between two polls.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.pipes {
            Pipes::At { output, .. } => std::pin::pin!(output.read_buf(&mut self.buffer)).poll(context),
            _ => Poll::Ready(Ok(0)),
        }
    }

    /// The head part of the frame in the buffer.
    pub(crate) fn head(&self, header: &FrameHeader) -> &[u8] {
        self.buffer.get(REPLY_HEADER..REPLY_HEADER + header.head_len).unwrap_or_default()
    }

    /// Takes the frame out of the buffer and gives what follows its head.
    pub(crate) fn take(&mut self, header: &FrameHeader) -> Bytes {
        let body_len = header.len.saturating_sub(header.head_len);
        self.buffer.advance((REPLY_HEADER + header.head_len).min(self.buffer.len()));
        let body_len = body_len.min(self.buffer.len());
        if body_len > COPIED_BODY {
            return self.buffer.split_to(body_len).freeze();
        }
        let body = Bytes::copy_from_slice(&self.buffer[..body_len]);
        self.buffer.advance(body_len);
        body
    }

    /// Ready once `due` has passed.
    pub(crate) fn poll_due(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(due, context)
    }

    /// Makes the clock ring by `due` at the latest; whoever polls it finds out what for.
    pub(crate) fn ring_by(&mut self, due: Instant) {
        self.alarm.ring_by(due);
    }

    /// A call took so long.
    pub(crate) fn took(&mut self, micros: u32) {
        self.usual_micros = self.usual_micros - self.usual_micros / 8 + micros / 8;
        self.info.worked.store(self.info.worked() + u64::from(micros), Ordering::Relaxed);
    }

    /// Whether nothing was read that no call has asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.buffer.is_empty()
    }
}
