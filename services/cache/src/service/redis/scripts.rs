//! What has to be done at once, one round trip each. Numbers of purges are microseconds of Redis' clock, or one more than the
//! last: so they rise over a flush too, and Lua's numbers hold them exactly.

use std::sync::LazyLock;

use troupe_redis::redis::Script;

use crate::service::leases::FENCED_FOR;

/// An instance says that it is there, and learns where the history is. KEYS: epochs, log, services, acks, prefixes. ARGV: uid,
/// its lease in ms, how far it is, a generation and a nonce for a history that has to begin, the first record of one, and
/// generation, number and nonce of the last purge it knows. Gives back generation, number of the last purge, `same`, `behind` (the
/// place it knows is not in the log any more) or `anew`, and how many instances there are.
///
/// A history in which the place it knows is missing has lost what followed it, as after a fail-over: it ends, and another begins.
pub(super) static CYCLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local millis = time[1] * 1000 + math.floor(time[2] / 1000)
local gen = redis.call('HGET', KEYS[1], 'gen')
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
local state = 'same'
if gen and gen == ARGV[7] then
  local entry = redis.call('XRANGE', KEYS[2], ARGV[8] .. '-0', ARGV[8] .. '-0')
  if #entry == 0 then
    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
    local known = tonumber(ARGV[8])
    if #first > 0 and tonumber(string.match(first[1][1], '^%d+')) > known and seq > known then
      state = 'behind'
    else
      gen = false
    end
  elseif entry[1][2][2] ~= ARGV[9] then
    gen = false
  end
elseif gen then
  state = 'anew'
end
if not gen then
  state = 'anew'
  gen = ARGV[4]
  seq = math.max(seq + 1, micros, tonumber(ARGV[8]) + 1)
  local text = string.format('%.0f', seq)
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[5])
  redis.call('HSET', KEYS[1], 'gen', gen, 'seq', text, 'floor', text, 'soft', '0', 'px', '0', 'made', string.format('%.0f', millis))
  redis.call('XADD', KEYS[2], text .. '-0', 'n', ARGV[5], 'r', ARGV[6], 's', ARGV[1])
end
redis.call('ZADD', KEYS[3], millis + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', millis - 60000)
for _, uid in ipairs(gone) do
  redis.call('HDEL', KEYS[4], uid)
  redis.call('ZREM', KEYS[3], uid)
end
return {gen, string.format('%.0f', seq), state, redis.call('ZCOUNT', KEYS[3], millis, '+inf')}
",
    )
});

/// Appends a purge. KEYS: epochs, log, services, prefixes. ARGV: nonce, record, `h` or `s` (it makes stale), `all`, `name` or
/// `prefix`, its name, most names, most prefixes, length of the log, own uid, and for a replacement the generation and number before
/// which what is replaced was fetched and the names of the purges that would have been about it. Gives back nothing where there is
/// no history, or such a purge was; else generation, number, age of the history in ms, and how many other instances there are.
///
/// Where there are too many names, everything that is older than now counts as purged, and there are none. Where the prefixes are
/// gone, which Redis may evict by themselves, what is older than the last of them counts as purged: so those that are there are all.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gen = redis.call('HGET', KEYS[1], 'gen')
if not gen then return {} end
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local millis = time[1] * 1000 + math.floor(time[2] / 1000)
local function parts(text)
  if not text then return 0, 0 end
  local hard, soft = string.match(text, '^(%d+):(%d+)$')
  return tonumber(hard or '0'), tonumber(soft or '0')
end
if ARGV[10] then
  local born = tonumber(ARGV[11])
  if gen ~= ARGV[10] or tonumber(redis.call('HGET', KEYS[1], 'floor') or '0') > born then return {} end
  if tonumber(redis.call('HGET', KEYS[1], 'px') or '0') > born then return {} end
  if tonumber(redis.call('HGET', KEYS[1], 'soft') or '0') > born then return {} end
  for i = 12, #ARGV do
    local hard, soft = parts(redis.call('HGET', KEYS[1], ARGV[i]))
    if hard > born or soft > born then return {} end
  end
end
local seq = math.max(tonumber(redis.call('HGET', KEYS[1], 'seq') or '0') + 1, micros)
local text = string.format('%.0f', seq)
local function marked(before)
  local hard, soft = parts(before)
  if ARGV[3] == 'h' then hard = seq else soft = seq end
  return string.format('%.0f:%.0f', hard, soft)
end
local function fold()
  local made = redis.call('HGET', KEYS[1], 'made')
  redis.call('DEL', KEYS[1], KEYS[4])
  redis.call('HSET', KEYS[1], 'gen', gen, 'floor', text, 'soft', '0', 'px', '0', 'made', made)
end
if ARGV[4] == 'all' then
  if ARGV[3] == 'h' then redis.call('HSET', KEYS[1], 'floor', text) else redis.call('HSET', KEYS[1], 'soft', text) end
elseif ARGV[4] == 'prefix' then
  local count, px = redis.call('HLEN', KEYS[4]), redis.call('HGET', KEYS[1], 'px') or '0'
  if count == 0 and tonumber(px) > tonumber(redis.call('HGET', KEYS[1], 'floor') or '0') then redis.call('HSET', KEYS[1], 'floor', px) end
  if count >= tonumber(ARGV[7]) then fold() else
    redis.call('HSET', KEYS[4], ARGV[5], marked(redis.call('HGET', KEYS[4], ARGV[5])))
    redis.call('HSET', KEYS[1], 'px', text)
  end
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then fold() else
  redis.call('HSET', KEYS[1], ARGV[5], marked(redis.call('HGET', KEYS[1], ARGV[5])))
end
redis.call('HSET', KEYS[1], 'seq', text)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[8], text .. '-0', 'n', ARGV[1], 'r', ARGV[2], 's', ARGV[9])
local others = redis.call('ZCOUNT', KEYS[3], millis, '+inf')
local own = redis.call('ZSCORE', KEYS[3], ARGV[9])
if own and tonumber(own) >= millis then others = others - 1 end
return {gen, text, millis - tonumber(redis.call('HGET', KEYS[1], 'made') or '0'), others}
",
    )
});

/// How far the other instances are. KEYS: services, acks, found, epochs. ARGV: own uid, number of the purge. Gives back the generation, what was found by
/// gateways that watch others (URLs, answers, how many confirmed it, how many lapsed), and how far each instance is that is there.
pub(super) static OTHERS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local millis = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {redis.call('HGET', KEYS[4], 'gen') or ''}
for i, what in ipairs({':u', ':r', ':c', ':l'}) do
  answer[i + 1] = redis.call('HGET', KEYS[3], ARGV[2] .. what) or '0'
end
for _, uid in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], millis, '+inf')) do
  if uid ~= ARGV[1] then answer[#answer + 1] = redis.call('HGET', KEYS[2], uid) or '' end
end
return answer
",
    )
});

/// Stores an answer and ends the lease, unless a later holder has stored one. KEYS: where it is stored, where it is said which fields
/// variants differ by, and the lease, where it is on the same node. ARGV: token in digits, the value, time to live in ms, what is said
/// (or nothing), and how many bytes are wanted of a version that is there already (0: it is replaced). Gives back `0` (there is a later
/// holder), `1` (stored) or `2`, and with that the bytes and the time to live of the version that is there.
pub(super) static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = KEYS[3] and redis.call('GET', KEYS[3])
held = held and string.sub(held, 1, 16)
if held and held ~= 'apart' and held > ARGV[1] then return {0, '', 0} end
local before = redis.call('GETRANGE', KEYS[1], 0, math.max(16, ARGV[5] - 1))
if string.sub(before, 1, 1) == 'E' and string.sub(before, 2, 17) > ARGV[1] then return {0, '', 0} end
if ARGV[5] ~= '0' and before ~= '' then return {2, before, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4], 'PX', math.max(ARGV[3], redis.call('PTTL', KEYS[2]))) end
if held == ARGV[1] then redis.call('DEL', KEYS[3]) end
return {1, '', 0}
",
    )
});

/// How a lease is taken: a function of its key, the key of [`WITHDRAW`], its time in ms, and the call's nonce, which stands behind the
/// token. What says who has it stays for a while when its time is up, so that a holder that comes too late is told from one that nobody
/// has followed. A call that a cluster's client sends once more is granted what it was.
static TAKING: LazyLock<String> = LazyLock::new(|| {
    let fenced = FENCED_FOR.as_millis();
    format!(
        r"
local function take(key, withdrawn, time, nonce)
  local held = redis.call('GET', key)
  if held == 'apart' then return held end
  local before = held and string.sub(held, 1, 16) or '0'
  if held and string.sub(held, 17) == nonce then return before end
  if held and redis.call('PTTL', key) > {fenced} or redis.call('EXISTS', withdrawn) == 1 then return 'held' end
  local now = redis.call('TIME')
  local token = string.format('%016.0f', math.max(now[1] * 1000000 + now[2], tonumber(before) + 1))
  redis.call('SET', key, token .. nonce, 'PX', time + {fenced})
  return token
end
"
    )
});

/// Takes a lease. KEYS: it, and that of [`WITHDRAW`]. ARGV: its time in ms, a nonce. Gives back a token, or `held` or `apart`.
pub(super) static TAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[&**TAKING, "return take(KEYS[1], KEYS[2], ARGV[1], ARGV[2])"].concat()));

/// Looks for an answer, and takes the lease where nothing is. KEYS: epochs, where it is stored, the lease, and that of [`WITHDRAW`].
/// ARGV: the lease's time in ms, a nonce, and the names whose numbers are wanted. Gives back the numbers, the value, its time to live
/// in ms, and what [`TAKE`] gives.
pub(super) static LOOK: LazyLock<Script> = LazyLock::new(|| {
    let looking = r"
local numbers = redis.call('HMGET', KEYS[1], unpack(ARGV, 3))
local value = redis.call('GET', KEYS[2])
if value then return {numbers, value, redis.call('PTTL', KEYS[2]), false} end
return {numbers, false, 0, take(KEYS[3], KEYS[4], ARGV[1], ARGV[2])}
";
    Script::new(&[&**TAKING, looking].concat())
});

/// Ends a lease. KEYS: it. ARGV: its token in digits, and for how long nobody is to wait for another (0: not at all).
pub(super) static GIVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return end
if ARGV[2] ~= '0' then redis.call('SET', KEYS[1], 'apart', 'PX', ARGV[2]) else redis.call('DEL', KEYS[1]) end
",
    )
});

/// Ends the lease that a call has taken, or lets it take none where it comes after this. KEYS: the lease, and what says that the call
/// is withdrawn. ARGV: its nonce, and for how long that is said, in ms.
pub(super) static WITHDRAW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 17) == ARGV[1] then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[2], '', 'PX', ARGV[2]) end
",
    )
});
