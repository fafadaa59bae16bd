//! The head of a response.

use bytes::Bytes;

use super::{MAX_FIELDS, MAX_RAW, MalformedHead, Table};

pub(super) const TAG: u8 = 2;
const FIXED: usize = 6;

/// A checked response head. Cloning it costs a reference count.
#[derive(Clone)]
pub struct ResponseHead {
    bytes: Bytes,
    fields: u16,
}

impl ResponseHead {
    /// Takes a head from a peer; see [`super::RequestHead::decode`].
    ///
    /// # Errors
    /// When the block is cut short, too large, or its status or fields cannot stand in a response.
    pub fn decode(bytes: Bytes) -> Result<Self, MalformedHead> {
        let Some(fixed) = bytes.get(..FIXED) else {
            return Err(MalformedHead("cut short"));
        };
        if fixed[0] != TAG {
            return Err(MalformedHead("not a response head"));
        }
        if !(100..1000).contains(&u16::from_le_bytes([fixed[2], fixed[3]])) {
            return Err(MalformedHead("status out of range"));
        }
        let fields = u16::from_le_bytes([fixed[4], fixed[5]]);
        if usize::from(fields) > MAX_FIELDS {
            return Err(MalformedHead("too many fields"));
        }
        let raw_at = FIXED + usize::from(fields) * 4;
        if bytes.len() < raw_at || bytes.len() - raw_at > MAX_RAW {
            return Err(MalformedHead("cut short or too large"));
        }
        let head = Self { bytes, fields };
        head.table().validate()?;
        Ok(head)
    }

    pub(super) fn from_built(bytes: Bytes, fields: u16) -> Self {
        Self { bytes, fields }
    }

    /// The head as it travels.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        match self.bytes.get(2..4) {
            Some(two) => u16::from_le_bytes([two[0], two[1]]),
            None => 500,
        }
    }

    /// How many header fields there are.
    pub fn len(&self) -> usize {
        usize::from(self.fields)
    }

    /// Whether there is no header field.
    pub fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// The header fields in the order in which they were set; names as they were written.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + '_ {
        self.table().texts()
    }

    /// As [`ResponseHead::fields`], with the names as the ASCII bytes they are: cheaper where no text is needed.
    pub fn raw_fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        self.table().iter()
    }

    /// The header fields, each name as the ASCII bytes it is, each value as a slice that shares this head's memory.
    pub fn shared_fields(&self) -> impl Iterator<Item = (&[u8], Bytes)> + '_ {
        self.table().iter().map(|(name, value)| (name, self.bytes.slice_ref(value)))
    }

    /// The first value of the field `name`, whatever its case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.table().iter();
        fields.find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn table(&self) -> Table<'_> {
        let raw_at = FIXED + usize::from(self.fields) * 4;
        Table {
            ends: self.bytes.get(FIXED..raw_at).unwrap_or_default(),
            raw: self.bytes.get(raw_at..).unwrap_or_default(),
            start: 0,
        }
    }
}

impl std::fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} fields)", self.status(), self.fields)
    }
}
