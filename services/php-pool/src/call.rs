//! The path of one call: a process, the request, the reply.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::times::micros;

use crate::feed::Feed;
use crate::functions::Function;
use crate::local::{Begun, Local};
use crate::pool::Condition;
use crate::process::{Fate, Gone};
use crate::protocol::{FrameHeader, FromPhp};
use crate::reply::{self, BodyLength};
use crate::request::{Payload, Request};
use crate::turn::{Turn, Word, Written};
use crate::{acquire, spool, stream};

/// A body up to here travels in the frame of its call; a longer one is spooled before a process is taken.
pub(crate) const INLINE_BODY: u64 = 64 * 1024;
/// Processes that may be found dead before the call is given up. They are found so when something kills them all at once.
const ATTEMPTS: u32 = 16;
/// What a caller that finds the pool full is told to wait.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A call that waited this long in queues before it came here shows that the pool is too small.
const QUEUED_TOO_LONG: Duration = Duration::from_millis(5);

/// Answers one call.
pub(crate) async fn invoke(local: Rc<Local>, envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let arrived = Instant::now();
    let result = serve(&local, envelope, arrived).await.map_err(|failure| passed(failure, arrived));
    let metrics = &local.pool.metrics;
    match &result {
        Ok(_) => metrics.answered.increment(1),
        Err(failure) => match (failure.outcome, failure.stage) {
            (Outcome::Deadline, Stage::Php) => metrics.timeouts.increment(1),
            (Outcome::Deadline, _) => metrics.expired.increment(1),
            (Outcome::Overloaded, _) => metrics.overloaded.increment(1),
            (Outcome::Refused, _) => metrics.refused.increment(1),
            (Outcome::Internal, _) => metrics.errors.increment(1),
            _ => metrics.broken.increment(1),
        },
    }
    result
}

/// Where the time of a call went that failed before a process had it.
fn passed(failure: Failure, arrived: Instant) -> Failure {
    if failure.times != Times::default() {
        return failure;
    }
    let pool_us = micros(arrived.elapsed());
    failure.after(Times { pool_us, pool_wait_us: pool_us, ..Times::default() })
}

async fn serve(local: &Rc<Local>, envelope: Envelope<Invoke>, arrived: Instant) -> Result<Reply, Failure> {
    let Envelope { mut call, mut deadline, trace } = envelope;
    let mut counted = Some(local.count());
    if deadline.instant() <= arrived {
        return Err(Failure::deadline(Stage::PhpPool).not_started());
    }
    let function = match local.pool.functions.load().get(&call.function) {
        Some(function) => function.clone(),
        None => Box::pin(unknown(local, &call, deadline.instant())).await?,
    };
    // The balancer gave it no place while its body was on its way: what it finds full is not what it was sent to.
    let uploaded = matches!(call.body, Body::Stream(_)) && !call.flags.streaming;
    let payload = match std::mem::take(&mut call.body) {
        Body::Empty => Payload::Inline(Bytes::new()),
        Body::Full(body) if body.len() as u64 <= INLINE_BODY && !spool::is_multipart(&call.head) => {
            Payload::Inline(body)
        }
        body @ Body::Stream(_) if call.flags.streaming => Payload::Stream(body),
        body => {
            // A call whose body is on its way needs no process yet, and is not counted among those that do.
            counted = None;
            let before = Instant::now();
            let payload = Box::pin(spool::gather(&local.pool.spool, &call.head, body)).await?;
            // The budget counts from the complete body.
            deadline = troupe_mesh::deadline::Deadline::at(deadline.instant() + before.elapsed());
            payload
        }
    };
    let _counted = counted.unwrap_or_else(|| local.count());
    let queued = call.queued;
    let fast = function.known.pace.is_fast();
    let mut request = Request {
        call,
        trace,
        payload,
        known: function.known,
        fast,
        unseated: false,
        no_packet: Cell::default(),
        uploaded,
        arrived,
    };
    let deadline = deadline.instant();
    for _ in 0..ATTEMPTS {
        // The waits that are not of the usual path are boxed, so that the usual call's future stays small.
        let begun = match acquire::idle(local, &request) {
            Some(process) => {
                acquire::keep_spare(local, &request);
                match local.begin(process, &request, deadline) {
                    Begun::Running(turn) => Some(turn),
                    Begun::Writing(turn, rest) => Box::pin(write_rest(turn, rest)).await?,
                    Begun::Dead => None,
                    Begun::Missing(failure) => return Err(failure),
                }
            }
            None => {
                if queued > QUEUED_TOO_LONG {
                    local.pool.ask_for_more(queued < acquire::GROW_AFTER && request.known.pace.may_be_fast());
                }
                match acquire::seat(local, &request, deadline) {
                    Some(seated) => {
                        let turn = acquire::seated(seated).await?;
                        request.unseated = turn.is_none();
                        turn
                    }
                    None => Box::pin(acquire::queued(local, &request, deadline)).await?,
                }
            }
        };
        let Some(mut turn) = begun else { continue };
        let mut feed = feed(&mut request, &mut turn);
        let word = first_word(&mut turn, &mut feed).await;
        if matches!(word, Word::Gone(Gone::Closed)) && feed.is_none() && turn.take_unread() {
            turn.discard(Fate::Died);
            request.unseated = true;
            continue;
        }
        return answer(turn, request, feed, word);
    }
    Err(Failure::new(Outcome::Unreachable, Stage::PhpPool, "no php process stays alive").not_started())
}

/// A function that is not there: because there is none of that name, or because the code is being loaded.
async fn unknown(local: &Rc<Local>, call: &Invoke, until: Instant) -> Result<Function, Failure> {
    acquire::admit(local)?;
    let mut condition = local.pool.condition.subscribe();
    loop {
        let now = condition.borrow_and_update().clone();
        let functions = local.pool.functions.load();
        if let Some(function) = functions.get(&call.function) {
            return Ok(function.clone());
        }
        if let Some(broken) = functions.broken(&call.function) {
            return Err(broken);
        }
        match now {
            Condition::Up => return Err(functions.missing(&call.function)),
            Condition::Down(reason) => return Err(down(reason)),
            Condition::Booting => {}
        }
        match tokio::time::timeout_at(until.into(), condition.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Failure::deadline(Stage::PhpPool).not_started()),
        }
    }
}

/// The code cannot be loaded. Where it is wrong is for the log and for development.
pub(crate) fn down(reason: Box<str>) -> Failure {
    Failure::overloaded(Stage::PhpPool, "the pool's code cannot be loaded", RETRY_AFTER).with_detail(reason)
}

/// Writes the rest of a request that the pipe did not take at once. `None`: the process died and never had all of it.
pub(crate) async fn write_rest(mut turn: Turn, rest: Bytes) -> Result<Option<Turn>, Failure> {
    turn.half_written();
    match turn.write(rest).await {
        Written::All => Ok(Some(turn)),
        Written::Gone => {
            turn.discard(Fate::Died);
            Ok(None)
        }
        Written::Due => {
            turn.kill(Fate::TimedOut);
            Err(Failure::deadline(Stage::Php).not_started())
        }
    }
}

/// What moves the body of the call that has the turn, if it streams.
fn feed(request: &mut Request, turn: &mut Turn) -> Option<Pin<Box<Feed>>> {
    match std::mem::replace(&mut request.payload, Payload::Inline(Bytes::new())) {
        Payload::Stream(body) => Some(Box::pin(Feed::new(body, turn))),
        // The files of a form stay until PHP is done with them.
        payload => {
            request.payload = payload;
            None
        }
    }
}

/// Waits for what the process says first of the call that has the turn.
async fn first_word(turn: &mut Turn, feed: &mut Option<Pin<Box<Feed>>>) -> Word {
    poll_fn(|context| {
        if let Some(feed) = feed {
            feed.as_mut().poll(turn, context);
        }
        turn.poll_next(context)
    })
    .await
}

/// Reads the reply of the call that has the turn, from its first `word` on.
fn answer(turn: Turn, request: Request, feed: Option<Pin<Box<Feed>>>, word: Word) -> Result<Reply, Failure> {
    let header = match word {
        Word::Frame(header) => header,
        Word::Gone(gone) => {
            let times = failed(&turn, &request);
            return Err(gone_failure(turn, gone).after(times));
        }
        Word::Due => {
            let times = failed(&turn, &request);
            turn.kill(Fate::TimedOut);
            return Err(Failure::deadline(Stage::Php).after(times));
        }
    };
    // A body that PHP did not wait for the end of would be taken for the next call.
    let recycle = header.recycle || feed.as_ref().is_some_and(|feed| !feed.is_done());
    match header.kind {
        FromPhp::Reply => {
            record(&turn.local, &request, header.micros, header.status >= 500);
            turn.with(|process| process.took(header.micros));
            let length = match request.call.head.method() {
                "HEAD" => BodyLength::Open,
                _ => BodyLength::Whole(header.len - header.head_len),
            };
            let taken = turn.take(&header, |lines| reply::head(&turn.local, lines, header.status, length).0);
            let now = Instant::now();
            let times = times(&turn, &request, header.micros, now);
            let local = Rc::clone(&turn.local);
            end(turn, recycle, now);
            let Some((head, body)) = taken else {
                let failure = Failure::new(Outcome::Broken, Stage::Php, "the php process ended during the call");
                return Err(failure.after(times));
            };
            Ok(Reply { head, load: local.pool.load(), times, body: Body::full(body) })
        }
        FromPhp::Head => stream::reply(turn, header, request, feed),
        FromPhp::Expired => {
            let _ = turn.take(&header, |_| ());
            end(turn, recycle, Instant::now());
            Err(Failure::deadline(Stage::PhpPool).not_started())
        }
        FromPhp::Error => {
            record(&turn.local, &request, header.micros, true);
            turn.with(|process| process.took(header.micros));
            let now = Instant::now();
            let failure = error(&turn, &header, &request).after(times(&turn, &request, header.micros, now));
            end(turn, recycle, now);
            Err(failure)
        }
        FromPhp::Ready | FromPhp::Data | FromPhp::End | FromPhp::Done => {
            let now = Instant::now();
            let ran = now.saturating_duration_since(began(&turn, &request));
            let times = times(&turn, &request, micros(ran), now);
            Err(gone_failure(turn, Gone::BadFrame).after(times))
        }
    }
}

/// The call is over, `now`, and its frame taken: the process goes on, or ends as it said.
pub(crate) fn end(turn: Turn, recycle: bool, now: Instant) {
    if recycle { turn.discard(Fate::Recycled) } else { turn.pass(now) }
}

/// Where the time of the call that has the turn went, `now` that its reply's head is here, or will not come.
pub(crate) fn times(turn: &Turn, request: &Request, run_us: u32, now: Instant) -> Times {
    if cfg!(feature = "untimed") {
        return Times::default();
    }
    let began = began(turn, request);
    Times {
        pool_us: micros(now.saturating_duration_since(request.arrived)),
        pool_wait_us: micros(began.saturating_duration_since(request.arrived)),
        run_us,
        ..Times::default()
    }
}

/// A call ran to an end that PHP tells, `micros` long.
pub(crate) fn record(local: &Local, request: &Request, micros: u32, failed: bool) {
    request.known.meters.ran(f64::from(micros) / 1e6, failed);
    request.known.pace.record(micros);
    local.pool.pace.record(micros);
}

/// A call that had begun came to an end of which PHP tells nothing; where its time went.
pub(crate) fn failed(turn: &Turn, request: &Request) -> Times {
    let now = Instant::now();
    let ran = now.saturating_duration_since(began(turn, request));
    request.known.meters.ran(ran.as_secs_f64(), true);
    times(turn, request, micros(ran), now)
}

fn began(turn: &Turn, request: &Request) -> Instant {
    turn.slot().began().unwrap_or(request.arrived)
}

/// The process died, or broke the protocol and is killed.
pub(crate) fn gone_failure(turn: Turn, gone: Gone) -> Failure {
    let reason = match gone {
        Gone::Closed => turn.with(|process| process.info.doom(Fate::Died)).unwrap_or(Fate::Died),
        Gone::BadFrame => Fate::Protocol,
    };
    match gone {
        Gone::Closed => turn.discard(reason),
        Gone::BadFrame => turn.kill(reason),
    }
    let text: Cow<'static, str> = match reason {
        Fate::Memory => "the php process took too much memory and was ended".into(),
        Fate::Protocol => "the php process broke the protocol and was ended".into(),
        Fate::Stopped => "the pool's processes were stopped during the call".into(),
        _ => "the php process ended during the call".into(),
    };
    Failure::new(Outcome::Broken, Stage::Php, text)
}

/// What the runtime tells of an error that nobody caught.
#[derive(Deserialize)]
struct PhpError {
    class: String,
    message: String,
    file: String,
    line: u32,
}

/// Logs the error in the frame, once, and makes the failure of it.
pub(crate) fn error(turn: &Turn, header: &FrameHeader, request: &Request) -> Failure {
    let detail = match turn.take(header, |_| ()) {
        Some(((), payload)) => match serde_json::from_slice::<PhpError>(&payload) {
            Ok(PhpError { class, message, file, line }) => format!("{class}: {message} in {file}:{line}"),
            Err(_) => "an error that cannot be read".to_owned(),
        },
        None => "an error without a process".to_owned(),
    };
    let process = turn.with(|process| process.info.id);
    tracing::error!(
        pool = %turn.local.pool.name,
        function = %request.call.function,
        request_id = request_id(&request.call),
        trace_id = request.trace.map(|trace| trace.id_text()),
        process,
        error = %detail,
        "a function failed"
    );
    Failure::new(Outcome::Internal, Stage::Php, "the function failed").with_detail(detail)
}

pub(crate) fn request_id(call: &Invoke) -> &str {
    call.head.field("x-request-id").and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
}
