//! The W3C trace context in the 25 bytes it takes on the wire, and its `traceparent` text.

use std::fmt;

/// Bytes of a trace context on the wire: trace id, span id, flags.
pub const TRACE_LEN: usize = 16 + 8 + 1;

/// Length of a version 00 `traceparent` value: `00-<32 hex>-<16 hex>-<2 hex>`.
pub const TRACEPARENT_LEN: usize = 55;

/// Which trace a call belongs to and which span is its parent.
///
/// Both ids are never all zero: the specification calls such a context invalid, so none is ever built from input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace, 128 bits.
    pub trace_id: [u8; 16],
    /// The calling span, 64 bits.
    pub span_id: [u8; 8],
    /// Trace flags; bit 0 says sampled.
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent` value. `None` when it is malformed, so that the caller starts a trace of its own.
    ///
    /// A later version than 00 is read by its first four fields, as the specification asks; version ff is invalid.
    pub fn parse_traceparent(value: &[u8]) -> Option<Self> {
        let (fixed, rest) = value.split_at_checked(TRACEPARENT_LEN)?;
        let mut fields = fixed.split(|byte| *byte == b'-');
        let [version] = hex_bytes::<1>(fields.next()?)?;
        let trace_id = hex_bytes::<16>(fields.next()?)?;
        let span_id = hex_bytes::<8>(fields.next()?)?;
        let [flags] = hex_bytes::<1>(fields.next()?)?;
        let rest_fits = match version {
            0x00 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !rest_fits {
            return None;
        }
        Self { trace_id, span_id, flags }.valid()
    }

    /// The context as the 25 bytes of a frame.
    pub fn to_bytes(&self) -> [u8; TRACE_LEN] {
        let mut bytes = [0; TRACE_LEN];
        let (trace_id, rest) = bytes.split_at_mut(16);
        trace_id.copy_from_slice(&self.trace_id);
        let (span_id, flags) = rest.split_at_mut(8);
        span_id.copy_from_slice(&self.span_id);
        flags.copy_from_slice(&[self.flags]);
        bytes
    }

    /// The context from the 25 bytes of a frame; `None` when an id is all zero.
    pub fn from_bytes(bytes: &[u8; TRACE_LEN]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk::<16>()?;
        let (span_id, rest) = rest.split_first_chunk::<8>()?;
        let flags = rest.first()?;
        Self { trace_id: *trace_id, span_id: *span_id, flags: *flags }.valid()
    }

    /// The same trace with another span as the parent.
    pub fn child(&self, span_id: [u8; 8]) -> Self {
        Self { span_id, ..*self }
    }

    /// The version 00 `traceparent` value.
    pub fn to_traceparent(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = [b'-'; TRACEPARENT_LEN];
        put_hex(&mut text, 0, &[0]);
        put_hex(&mut text, 3, &self.trace_id);
        put_hex(&mut text, 36, &self.span_id);
        put_hex(&mut text, 53, &[self.flags]);
        text
    }

    /// The trace's id as logs and tools write it: 32 hex digits.
    pub fn id_text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// Whether the trace is being recorded.
    pub fn sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    fn valid(self) -> Option<Self> {
        let invalid = self.trace_id == [0; 16] || self.span_id == [0; 8];
        (!invalid).then_some(self)
    }
}

/// Writes the version 00 `traceparent` value.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.to_traceparent()).unwrap_or_default())
    }
}

/// A span's id as logs and tools write it: 16 hex digits.
pub fn span_text(span_id: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(span_id))
}

/// Writes `bytes` as lower-case hex into `text`, from `at` on.
fn put_hex(text: &mut [u8], at: usize, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let places = text.get_mut(at..).unwrap_or_default().chunks_exact_mut(2);
    for (place, byte) in places.zip(bytes) {
        place.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Exactly `N` bytes of lower-case hex; upper case is malformed in this header.
fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_sample_of_the_specification_survives() {
        let context = TraceContext::parse_traceparent(SAMPLE.as_bytes()).expect("valid");
        assert!(context.sampled());
        assert_eq!(context.to_string(), SAMPLE);
        assert_eq!(context.id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn malformed_values_are_refused() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let version_ff = SAMPLE.replacen("00", "ff", 1);
        let upper = SAMPLE.to_uppercase();
        let trailing = format!("{SAMPLE}-more");
        for value in ["", "00-", zero_trace, zero_span, &version_ff, &upper, &trailing] {
            assert_eq!(TraceContext::parse_traceparent(value.as_bytes()), None, "{value}");
        }
        let later = trailing.replacen("00", "01", 1);
        assert!(TraceContext::parse_traceparent(later.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) {
            let context = TraceContext { trace_id, span_id, flags };
            prop_assume!(context.valid().is_some());
            prop_assert_eq!(TraceContext::parse_traceparent(context.to_string().as_bytes()), Some(context));
            prop_assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        }

        #[test]
        fn any_bytes_are_survived(value: Vec<u8>) {
            let _ = TraceContext::parse_traceparent(&value);
        }
    }
}
