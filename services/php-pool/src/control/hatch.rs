//! A new process, from its FIFOs to its READY.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::launch::Launch;
use super::zygote::{LONGEST_EVENT, Loaded};
use super::{Note, capture};
use crate::pool::Pool;
use crate::printed::Channel;
use crate::process::ProcessInfo;
use crate::protocol::{FrameHeader, FromPhp, MAX_PAYLOAD, REPLY_HEADER};
use crate::rundir::{Fifo, RunDir};

/// The pipes of a process that is about to be.
#[derive(Debug)]
pub(crate) struct Nest {
    fifos: [Fifo; 4],
    input: OwnedFd,
    output: OwnedFd,
    /// Bytes that READY may have: more than a frame of a call where it tells, as no zygote has, what was loaded.
    longest_ready: usize,
}

/// The tasks that look after a process.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Waits for its READY.
    pub(crate) ready: JoinHandle<()>,
    /// Reads its standard error; over when that is closed.
    pub(crate) errors: Option<JoinHandle<()>>,
}

/// What a process says when it is up.
#[derive(Debug, serde::Deserialize)]
struct Ready {
    pid: i32,
    /// Only from a process that no zygote forked.
    #[serde(flatten)]
    loaded: Option<Loaded>,
}

impl Nest {
    /// Makes the FIFOs of the process `id`.
    pub(crate) fn build(run: &RunDir, id: u32) -> io::Result<Self> {
        let [input, output, stdout, stderr] = [
            run.fifo(&format!("{id}.in"))?,
            run.fifo(&format!("{id}.out"))?,
            run.fifo(&format!("{id}.stdout"))?,
            run.fifo(&format!("{id}.stderr"))?,
        ];
        let (writer, reader) = (input.packet_writer()?, output.reader()?);
        Ok(Self { fifos: [input, output, stdout, stderr], input: writer, output: reader, longest_ready: MAX_PAYLOAD })
    }

    /// Starts a process of its own instead of having one forked.
    pub(crate) fn exec(&mut self, launch: &Launch, run: &RunDir, id: u32) -> io::Result<tokio::process::Child> {
        self.longest_ready = LONGEST_EVENT;
        let [_, _, stdout, stderr] = &self.fifos;
        let mut command = launch.command(run, "process.php")?;
        command.arg(id.to_string()).stdout(stdout.blocking_writer()?).stderr(stderr.blocking_writer()?);
        launch.spawn(command)
    }

    /// Reads what the process prints, and waits up to `limit` for it to be ready.
    pub(crate) fn watch(self, pool: &Arc<Pool>, info: &Arc<ProcessInfo>, limit: Duration) -> io::Result<Watch> {
        let [_, _, stdout, stderr] = &self.fifos;
        let mut errors = None;
        for (fifo, channel) in [(stdout, Channel::Stdout), (stderr, Channel::Stderr)] {
            let source = pipe::Receiver::from_owned_fd_unchecked(fifo.reader()?)?;
            let (pool, info) = (Arc::clone(pool), Arc::clone(info));
            let task = actix_rt::spawn(async move { capture::process(source, &pool, &info, channel).await });
            if channel == Channel::Stderr {
                errors = Some(task);
            }
        }
        let (pool, id) = (Arc::clone(pool), info.id);
        let ready = actix_rt::spawn(async move {
            let hatched = tokio::time::timeout(limit, self.ready());
            pool.tell(match hatched.await {
                Ok(Ok((ready, input, output))) => {
                    Note::Ready { id, pid: ready.pid, loaded: ready.loaded, input, output }
                }
                Ok(Err(error)) => Note::NotReady { id, why: error.to_string() },
                Err(_) => Note::NotReady { id, why: format!("it was not ready within {limit:?}") },
            });
        });
        Ok(Watch { ready, errors })
    }

    async fn ready(self) -> io::Result<(Ready, OwnedFd, OwnedFd)> {
        let mut output = pipe::Receiver::from_owned_fd_unchecked(self.output)?;
        let mut buffer = BytesMut::new();
        let header = loop {
            match FrameHeader::decode_within(&buffer, self.longest_ready).map_err(io::Error::other)? {
                Some(header) if buffer.len() >= REPLY_HEADER + header.len => break header,
                _ => {}
            }
            if output.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        buffer.advance(REPLY_HEADER);
        if header.kind != FromPhp::Ready || buffer.len() != header.len {
            return Err(io::Error::other("its first frame is not READY"));
        }
        let ready = serde_json::from_slice(&buffer).map_err(io::Error::other)?;
        Ok((ready, self.input, output.into_nonblocking_fd()?))
    }
}
