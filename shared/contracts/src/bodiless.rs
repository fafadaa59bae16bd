//! Contracts whose call and reply are each one serde value, without a body.

/// Implements [`Contract`](troupe_mesh::contract::Contract) for such a call and its reply.
///
/// A macro, because a trait of another crate cannot be implemented for every type with a trait of ours.
macro_rules! bodiless {
    ($call:ty => $reply:ty, id: $id:literal, version: $version:literal, name: $name:literal) => {
        impl troupe_mesh::contract::Contract for $call {
            type Reply = $reply;

            const ID: u16 = $id;
            const VERSION: u16 = $version;
            const NAME: &'static str = $name;

            fn encode_head(&self, out: &mut bytes::BytesMut) {
                $crate::envelope::put(self, &[], out);
            }

            fn into_body(self) -> troupe_mesh::body::Body {
                troupe_mesh::body::Body::Empty
            }

            fn decode(head: bytes::Bytes, _: troupe_mesh::body::Body) -> Result<Self, troupe_mesh::contract::BadHead> {
                $crate::bodiless::read($name, "not the call it says it is", &head)
            }

            fn encode_reply_head(reply: &$reply, out: &mut bytes::BytesMut) {
                $crate::envelope::put(reply, &[], out);
            }

            fn reply_into_body(_: $reply) -> troupe_mesh::body::Body {
                troupe_mesh::body::Body::Empty
            }

            fn decode_reply(
                head: bytes::Bytes,
                _: troupe_mesh::body::Body,
            ) -> Result<$reply, troupe_mesh::contract::BadHead> {
                $crate::bodiless::read($name, "not a reply to it", &head)
            }
        }
    };
}

pub(crate) use bodiless;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use troupe_mesh::contract::BadHead;

use crate::envelope;

/// Reads the one value of a head.
pub(crate) fn read<T: DeserializeOwned>(contract: &'static str, why: &'static str, head: &Bytes) -> Result<T, BadHead> {
    let (meta, _) = envelope::split(head).ok_or(BadHead { contract, why: "cut short" })?;
    envelope::read(meta).ok_or(BadHead { contract, why })
}
