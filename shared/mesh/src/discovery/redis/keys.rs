//! What stands in Redis, and the three scripts that touch it, one round trip each.
//!
//! | key | type | what |
//! |---|---|---|
//! | `ns:{service}:members` | sorted set | uids by the time of their last beat, by Redis' clock in milliseconds |
//! | `ns:{service}:member:<uid>` | string | the record of an instance; ends with its last beat |
//! | `ns:{service}:at:<address>` | string | the uid of the newest start at an address; likewise |
//! | `ns:{service}:changes` | channel | told of each change; says nothing but that there is one |
//!
//! The braces are a hash tag: in a cluster all keys of a service are on one node, which its scripts need. The reader computes
//! names of keys from the set; they have the same tag.

use std::sync::LazyLock;

use troupe_redis::redis::Script;
use troupe_wire::handshake::Uid;

use crate::discovery::Address;

/// An instance beats. KEYS: members, member, at. ARGV: uid, record, time to live in ms, `join` or `stay`, channel.
/// Gives back 1, or 0 for an instance at whose address a newer one has started.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[1] then
  if ARGV[4] ~= 'join' then return 0 end
  redis.call('ZREM', KEYS[1], owner)
end
local before = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if before ~= ARGV[2] then redis.call('PUBLISH', ARGV[5], 'changed') end
return 1
",
    )
});

/// An instance stops; its record says so for a while. KEYS: members, member, at. ARGV: uid, record, time to live, channel.
pub(super) static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], 'changed')
return 1
",
    )
});

/// Who is there, oldest beat first: uid and record by turns. KEYS: members. ARGV: time to live, most instances, most bytes of
/// a record, what the names of records begin with. What is too long or of another type is left out here already.
pub(super) static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local uids = redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
local found = {}
for _, uid in ipairs(uids) do
  if #uid == 32 then
    local record = redis.pcall('GET', ARGV[4] .. uid)
    if type(record) == 'string' and #record <= tonumber(ARGV[3]) then
      found[#found + 1] = uid
      found[#found + 1] = record
    end
  end
end
return found
",
    )
});

/// The names for one service.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(namespace: &str, service: &str) -> Self {
        Self { prefix: format!("{namespace}:{{{service}}}:") }
    }

    pub(super) fn members(&self) -> String {
        format!("{}members", self.prefix)
    }

    pub(super) fn member(&self, uid: Uid) -> String {
        format!("{}{uid}", self.member_prefix())
    }

    pub(super) fn member_prefix(&self) -> String {
        format!("{}member:", self.prefix)
    }

    pub(super) fn at(&self, address: &Address) -> String {
        format!("{}at:{address}", self.prefix)
    }

    pub(super) fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }
}
