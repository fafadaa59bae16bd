//! What an instance says of itself in Redis, and what of it is believed.

use serde::{Deserialize, Serialize};
use troupe_wire::handshake::Uid;

use crate::discovery::Address;

/// Longest record that is read, in bytes; ours are a third of it.
pub(super) const LONGEST_RECORD: usize = 1024;
/// Longest name of an instance, in characters; longer ones are cut.
const LONGEST_NAME: usize = 128;
/// The form of the record. A reader skips records of a form that it does not know.
const FORM: u32 = 1;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It takes calls.
    Up,
    /// It takes calls, but will not for long.
    Draining,
    /// It has stopped. Said for a while, so that readers can tell it from one that Redis has lost.
    Gone,
}

/// A record as it is stored: JSON, for people with a command line. Unknown fields are for later versions.
#[derive(Debug, Serialize, Deserialize)]
struct Record<'a> {
    form: u32,
    address: std::borrow::Cow<'a, str>,
    name: std::borrow::Cow<'a, str>,
    state: State,
    build: std::borrow::Cow<'a, str>,
}

/// An instance that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) uid: Uid,
    pub(super) address: Address,
    pub(super) name: String,
    pub(super) state: State,
}

/// Why something that stands in Redis is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    #[error("its name is no uid of 32 hex digits")]
    Uid,
    #[error("it is longer than {LONGEST_RECORD} bytes")]
    Long,
    #[error("it is no record: {0}")]
    Malformed(String),
    #[error("it has form {0}, which this version does not know")]
    Form(u32),
    #[error("{0:?} is no address that can be dialled")]
    Address(String),
}

/// Writes the record of an instance.
pub(super) fn write(address: &Address, name: &str, state: State) -> String {
    let record = Record {
        form: FORM,
        address: address.to_string().into(),
        name: clean(name).into(),
        state,
        build: env!("CARGO_PKG_VERSION").into(),
    };
    // A struct of strings and numbers always has a JSON form.
    serde_json::to_string(&record).unwrap_or_default()
}

/// Reads a record. Whoever can write to Redis can write anything here.
pub(super) fn read(uid: &[u8], record: &[u8]) -> Result<Member, Rejected> {
    let uid = read_uid(uid).ok_or(Rejected::Uid)?;
    if record.len() > LONGEST_RECORD {
        return Err(Rejected::Long);
    }
    let record: Record<'_> = serde_json::from_slice(record).map_err(|error| Rejected::Malformed(error.to_string()))?;
    if record.form != FORM {
        return Err(Rejected::Form(record.form));
    }
    let address = record.address.parse().ok().filter(can_be_dialled);
    let address = address.ok_or_else(|| Rejected::Address(clean(&record.address)))?;
    Ok(Member { uid, address, name: clean(&record.name), state: record.state })
}

/// Whether an address means one place on a network: a wildcard or a group does not.
pub(super) fn can_be_dialled(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => {
            let ip = address.ip();
            let everybody = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
            !ip.is_unspecified() && !ip.is_multicast() && !everybody && address.port() != 0
        }
        Address::Unix(_) => true,
    }
}

fn read_uid(text: &[u8]) -> Option<Uid> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What may stand in a log line.
fn clean(text: &str) -> String {
    text.chars().take(LONGEST_NAME).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &[u8] = b"00000000000000000000000000000a0b";

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let address: Address = "10.0.0.7:7402".parse().expect("an address");
        for state in [State::Up, State::Draining, State::Gone] {
            let record = write(&address, "php-pool@host/1", state);
            assert!(record.len() < LONGEST_RECORD / 2, "{record}");
            let member = read(UID, record.as_bytes()).expect("its own record");
            assert_eq!(
                (member.address, member.name.as_str(), member.state),
                (address.clone(), "php-pool@host/1", state)
            );
            assert_eq!(member.uid.to_string().as_bytes(), UID);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_rejected() {
        for address in ["0.0.0.0:7402", "[::]:7402", "224.0.0.1:1", "255.255.255.255:1", "10.0.0.7:0", "name:7402", ""]
        {
            let record = format!(r#"{{"form":1,"address":"{address}","name":"n","state":"up","build":"1"}}"#);
            assert_eq!(read(UID, record.as_bytes()), Err(Rejected::Address(address.to_owned())), "{address}");
        }
    }

    #[test]
    fn what_is_no_record_is_rejected() {
        let good = write(&"10.0.0.7:7402".parse().expect("an address"), "n", State::Up);
        assert_eq!(read(b"0a0b", good.as_bytes()), Err(Rejected::Uid));
        assert_eq!(read(&UID.to_ascii_uppercase(), good.as_bytes()), Err(Rejected::Uid));
        assert_eq!(read(UID, &[b' '; LONGEST_RECORD + 1]), Err(Rejected::Long));
        let later = good.replace(r#""form":1"#, r#""form":2"#);
        assert_eq!(read(UID, later.as_bytes()), Err(Rejected::Form(2)));
        for bad in ["", "{}", "[]", "null", r#"{"form":1}"#, "\u{0}"] {
            assert!(matches!(read(UID, bad.as_bytes()), Err(Rejected::Malformed(_))), "{bad}");
        }
        let name = read(UID, good.replace(r#""n""#, r#""a\nb""#).as_bytes()).expect("a record").name;
        assert_eq!(name, "a?b", "no line of a log is made up");
    }

    proptest! {
        #[test]
        fn nothing_panics_the_reader(uid: Vec<u8>, record: Vec<u8>, text: String) {
            let _ = read(&uid, &record);
            let _ = read(UID, &record);
            let text = serde_json::json!({"form": 1, "address": text, "name": text, "state": "up", "build": text});
            let _ = read(UID, text.to_string().as_bytes());
        }
    }
}
