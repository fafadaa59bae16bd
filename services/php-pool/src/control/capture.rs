//! What PHP writes to its standard output and error: logged line by line, never part of a reply.

use crate::pool::Pool;
use crate::printed::{Channel, mark};
use crate::process::{ProcessInfo, Work};
use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line; a longer one is logged in parts.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// Bytes read at once.
const READ_SIZE: usize = 8 * 1024;

/// Reads `source` to its end and gives each line to `log`, one of more than `longest` bytes in parts.
pub(crate) async fn lines(mut source: impl AsyncRead + Unpin, longest: usize, mut log: impl FnMut(&str)) {
    let mut buffer = BytesMut::new();
    let mut searched = 0;
    loop {
        buffer.reserve(READ_SIZE);
        match source.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        while let Some(end) = memchr(b'\n', buffer.get(searched..).unwrap_or_default()) {
            let line = buffer.split_to(searched + end);
            buffer.advance(1);
            searched = 0;
            log(String::from_utf8_lossy(&line).trim_end_matches('\r'));
        }
        searched = buffer.len();
        if searched >= longest {
            log(&String::from_utf8_lossy(&buffer.split()));
            searched = 0;
        }
    }
    if !buffer.is_empty() {
        log(&String::from_utf8_lossy(&buffer));
    }
}

/// Logs what a process writes, with the request that it belongs to.
pub(crate) async fn process(source: impl AsyncRead + Unpin, pool: &Pool, info: &ProcessInfo, channel: Channel) {
    lines(source, MAX_LINE, |line| match mark(line) {
        Some((text, number)) if info.printed.is_expected(channel, number) => {
            if !text.is_empty() {
                log(text, pool, info, channel);
            }
            info.printed.reached(channel, number);
        }
        _ => log(line, pool, info, channel),
    })
    .await;
}

fn log(line: &str, pool: &Pool, info: &ProcessInfo, channel: Channel) {
    pool.prints.seen(channel);
    let work = info.printed.work(channel).or_else(|| info.work());
    let (request_id, trace_id) = ids(work.as_ref());
    let (pool, process, pid) = (&pool.name, info.id, info.pid());
    match channel {
        Channel::Stdout => tracing::info!(target: "php", pool, process, pid, request_id, trace_id, "{line}"),
        Channel::Stderr => {
            let line = without_time(line);
            info.keep_line(line);
            tracing::warn!(target: "php", pool, process, pid, request_id, trace_id, "{line}");
        }
    }
}

/// The line without the time that PHP puts before what it logs, as in `[26-Nov-2026 10:08:46 UTC] `: the log has its own, and by
/// this one a line that repeats itself would be another one each second.
fn without_time(line: &str) -> &str {
    const SHAPE: &[u8] = b"[00-aaa-0000 00:00:00 ";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        _ => byte == shape,
    };
    let stamped = line.len() >= SHAPE.len() && line.as_bytes().iter().zip(SHAPE).all(fits);
    // Behind it comes the name of the time zone.
    let behind = if stamped { line.get(SHAPE.len()..).and_then(|rest| rest.split_once("] ")) } else { None };
    behind.map_or(line, |(_, text)| text)
}

/// By which ids log lines name a request.
pub(crate) fn ids(work: Option<&Work>) -> (Option<&str>, Option<String>) {
    let id = work.and_then(|work| work.head.field("x-request-id")).and_then(|id| std::str::from_utf8(id).ok());
    (id, work.and_then(|work| work.trace).map(|trace| trace.id_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_php_puts_before_a_line_is_left_out() {
        assert_eq!(without_time("[26-Nov-2026 10:08:46 UTC] a [x] y"), "a [x] y");
        assert_eq!(without_time("[26-Nov-2026 10:08:46 Europe/Berlin] PHP Warning:  a"), "PHP Warning:  a");
        let others = [
            "",
            "[",
            "[26-Nov-2026",
            "[26-Nov-2026 10:08:46 UTC]",
            "[26-11-2026 10:08:46 UTC] a",
            "[info] a",
            "é[26-Nov",
        ];
        for line in others {
            assert_eq!(without_time(line), line);
        }
    }

    #[tokio::test]
    async fn lines_are_told_apart_and_long_ones_cut() {
        let mut read = Vec::new();
        let long = "x".repeat(MAX_LINE + 10);
        let source = format!("a\r\nb\n\n{long}\nlast");
        lines(source.as_bytes(), MAX_LINE, |line| read.push(line.to_owned())).await;
        assert_eq!(read[..3], ["a", "b", ""]);
        assert_eq!(read[3..].concat(), format!("{long}last"));
        assert!(read.iter().all(|line| line.len() <= MAX_LINE + READ_SIZE));
    }
}
