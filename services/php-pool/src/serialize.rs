//! PHP's `serialize()` format, as much of it as a call needs: arrays of strings, integers, null and arrays.
//!
//! PHP reads it back with one C call, whatever bytes the strings hold; JSON would refuse what is not UTF-8.

/// Digits an array's length takes. It is written when the array ends, and PHP reads leading zeros.
const COUNT_DIGITS: usize = 4;

/// An array that is being written. What is put between [`array()`] and [`Array::end`] are its keys and values in turn.
#[derive(Debug)]
#[must_use = "an array that does not end cannot be read"]
pub(crate) struct Array {
    count_at: usize,
    count: u16,
}

/// Starts an array.
pub(crate) fn array(out: &mut Vec<u8>) -> Array {
    out.extend_from_slice(b"a:");
    let count_at = out.len();
    out.extend_from_slice(b"0000:{");
    Array { count_at, count: 0 }
}

impl Array {
    /// A string entry; `value` may come in parts.
    pub(crate) fn entry(&mut self, out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        self.key(out, key);
        string(out, value);
    }

    /// The key of an entry whose value the caller writes next.
    pub(crate) fn key(&mut self, out: &mut Vec<u8>, key: &[u8]) {
        self.count += 1;
        string(out, key);
    }

    /// The next index of a list, whose value the caller writes next.
    pub(crate) fn item(&mut self, out: &mut Vec<u8>) {
        integer(out, u64::from(self.count));
        self.count += 1;
    }

    /// Ends the array.
    pub(crate) fn end(self, out: &mut Vec<u8>) {
        out.push(b'}');
        let mut rest = self.count;
        if let Some(digits) = out.get_mut(self.count_at..self.count_at + COUNT_DIGITS) {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

/// A string.
pub(crate) fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b"s:");
    decimal(out, value.len() as u64);
    out.extend_from_slice(b":\"");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\";");
}

/// An integer.
pub(crate) fn integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(b"i:");
    decimal(out, value);
    out.push(b';');
}

/// Null.
pub(crate) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"N;");
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn php_reads_back_what_is_written() {
        let mut out = Vec::new();
        let mut outer = array(&mut out);
        outer.entry(&mut out, b"REQUEST_URI", b"/\xff\"}");
        outer.key(&mut out, b"f");
        let mut list = array(&mut out);
        list.item(&mut out);
        integer(&mut out, 18_000);
        list.item(&mut out);
        null(&mut out);
        list.end(&mut out);
        outer.end(&mut out);
        assert_eq!(
            out,
            b"a:0002:{s:11:\"REQUEST_URI\";s:4:\"/\xff\"}\";s:1:\"f\";a:0002:{i:0;i:18000;i:1;N;}}".as_slice()
        );
    }
}
