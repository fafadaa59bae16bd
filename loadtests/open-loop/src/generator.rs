//! One generating thread: a schedule, some connections, and an epoll between them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::connection::{Connection, Progress};

/// How long answers may still come in after the last request fell due. What has not come by then is unfinished.
const GRACE: Duration = Duration::from_secs(5);

/// What one thread is to do.
pub(crate) struct Plan {
    /// The server.
    pub(crate) address: SocketAddr,
    /// The bytes of each request.
    pub(crate) request: Vec<u8>,
    /// The body that each response must carry.
    pub(crate) body: Vec<u8>,
    /// Connections of this thread.
    pub(crate) connections: usize,
    /// From one request falling due to the next.
    pub(crate) interval: Duration,
    /// Load that is not counted, before the measured one.
    pub(crate) warm_up: Duration,
    /// Load that is counted.
    pub(crate) measured: Duration,
}

/// What came of it. Times are in microseconds and of measured requests only.
#[derive(Default)]
pub(crate) struct Outcome {
    /// From when a request fell due to the end of its answer.
    pub(crate) latencies: Vec<u32>,
    /// From when a request fell due to when it was sent, where a connection was free: the generator's own fault.
    pub(crate) lateness: Vec<u32>,
    /// Connections that broke and answers that were not the expected ones, the warm-up included.
    pub(crate) errors: u64,
    /// Requests that were never sent or never answered.
    pub(crate) unfinished: u64,
}

impl Outcome {
    /// Joins another thread's outcome to this one.
    pub(crate) fn add(&mut self, other: Outcome) {
        self.latencies.extend(other.latencies);
        self.lateness.extend(other.lateness);
        self.errors += other.errors;
        self.unfinished += other.unfinished;
    }
}

/// Runs the plan to its end on this thread.
///
/// # Errors
/// When connections cannot be made at all; what fails later is counted.
pub(crate) fn run(plan: &Plan) -> io::Result<Outcome> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        connections.push(open(&epoll, plan.address, index)?);
    }
    let mut idle: Vec<usize> = (0..connections.len()).collect();
    let mut events = Vec::with_capacity(256);
    let mut outcome = Outcome::default();

    let start = Instant::now();
    let measured_from = start + plan.warm_up;
    let end = measured_from + plan.measured;
    let mut due = start;
    let mut waited = false;
    loop {
        let now = Instant::now();
        while due <= now && due < end {
            let Some(index) = idle.pop() else {
                waited = true;
                break;
            };
            if !waited && due >= measured_from {
                outcome.lateness.push(micros(now - due));
            }
            match connections[index].send(&plan.request, due) {
                Ok(()) => {}
                Err(_) => replace(&epoll, plan, index, &mut connections, &mut idle, &mut outcome)?,
            }
            due += plan.interval;
        }
        let finished = due >= end && idle.len() == connections.len();
        if finished || now > end + GRACE {
            break;
        }
        let timeout = if waited || due >= end { GRACE } else { due.saturating_duration_since(now) };
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or_default(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&timeout))?;
        for event in events.drain(..) {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(connection) = connections.get_mut(index) else {
                continue;
            };
            match connection.receive(&plan.body) {
                Progress::Pending => {}
                Progress::Answered { due, closes } => {
                    if due >= measured_from {
                        outcome.latencies.push(micros(due.elapsed()));
                    }
                    if closes {
                        connections[index] = open(&epoll, plan.address, index)?;
                    }
                    idle.push(index);
                    waited = false;
                }
                // Between two answers a server may close; that is no failure of a request.
                Progress::ClosedIdle => connections[index] = open(&epoll, plan.address, index)?,
                Progress::Failed => {
                    replace(&epoll, plan, index, &mut connections, &mut idle, &mut outcome)?;
                    waited = false;
                }
            }
        }
    }
    let unsent = (end.saturating_duration_since(due).as_nanos()) / plan.interval.as_nanos().max(1);
    let unanswered = connections.len() - idle.len();
    outcome.unfinished = u64::try_from(unsent).unwrap_or(u64::MAX) + unanswered as u64;
    Ok(outcome)
}

fn open(epoll: &OwnedFd, address: SocketAddr, index: usize) -> io::Result<Connection> {
    let connection = Connection::open(address)?;
    let data = epoll::EventData::new_u64(index as u64);
    epoll::add(epoll, connection.socket(), data, epoll::EventFlags::IN)?;
    Ok(connection)
}

/// Counts a failure and puts a fresh connection in the place of the failed one. Closing the old one takes it out of
/// the epoll.
fn replace(
    epoll: &OwnedFd,
    plan: &Plan,
    index: usize,
    connections: &mut [Connection],
    idle: &mut Vec<usize>,
    outcome: &mut Outcome,
) -> io::Result<()> {
    outcome.errors += 1;
    connections[index] = open(epoll, plan.address, index)?;
    // One that sent bytes nobody asked for was idle already.
    if !idle.contains(&index) {
        idle.push(index);
    }
    Ok(())
}

/// Whole microseconds; more than an hour of them reads as an hour and something.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
