//! What Redis does in one step, in Lua.
//!
//! Invariant: a script touches keys of one channel only, and leaves none of them without an end.

/// A script by its place in [`ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Numbers, retains and fans out. `KEYS`: meta, stream, idempotency key. `ARGV`: message channel, payload, history
    /// size, its milliseconds, milliseconds of the meta, name for a new life, version in 20 digits or nothing, its
    /// epoch, milliseconds of the idempotency key or 0. Answers epoch and offset.
    Publish,
    /// Reads. `KEYS`: meta, stream. `ARGV`: milliseconds of the meta, name for a new life, epoch and offset up to which
    /// the asker knows the stream, epoch that the range is of, `XRANGE`, `XREVRANGE` or nothing, its two ends, count or
    /// nothing. Answers epoch, offset and entries.
    Read,
    /// Adds to presence, or says that those are still there. `KEYS`: clients, ends, users. `ARGV`: message channel,
    /// milliseconds, then members and values in turn.
    Add,
    /// Removes from presence. `ARGV`: message channel, `tell` or nothing, then members.
    Remove,
    /// All values of presence. `ARGV`: message channel.
    Clients,
    /// Numbers of clients and users. `ARGV`: message channel.
    Stats,
}

/// Texts, in the order of [`Script`].
pub(super) fn all() -> [String; 6] {
    let stream = |body: &str| [TIME, STREAM, body].concat();
    let presence = |body: &str| [TIME, PRESENCE, body].concat();
    [
        stream(PUBLISH),
        stream(READ),
        presence(ADD),
        presence(REMOVE),
        presence("return redis.call('HVALS', KEYS[1])"),
        presence("return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[3])}"),
    ]
}

/// The call is needed before Redis 7, and does nothing since.
const TIME: &str = "
redis.replicate_commands()
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function keep(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end
";

const STREAM: &str = "
local meta, stream = KEYS[1], KEYS[2]
local function begin(epoch)
  redis.call('DEL', stream)
  redis.call('HSET', meta, 'epoch', epoch, 'offset', '0')
  return epoch
end
local function trim()
  while true do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not oldest or tonumber(oldest[2][2]) > now then return end
    redis.call('XDEL', stream, oldest[1])
  end
end
";

const PUBLISH: &str = "
local channel, payload, size, ttl, meta_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local version, version_epoch, key_ttl = ARGV[7], ARGV[8], ARGV[9]
if key_ttl ~= '0' then
  local accepted = redis.call('HMGET', KEYS[3], 'epoch', 'offset')
  if accepted[1] then return accepted end
end
if version ~= '' then
  local known = redis.call('HMGET', meta, 'version', 'version_epoch', 'offset', 'epoch')
  if known[1] and version <= known[1] and (version_epoch == '' or version_epoch == known[2]) then
    return {known[4] or '', known[3] or '0'}
  end
end
local offset, epoch = '0', ''
if size > 0 then
  epoch = redis.call('HGET', meta, 'epoch') or begin(ARGV[6])
  redis.call('HINCRBY', meta, 'offset', 1)
  offset = redis.call('HGET', meta, 'offset')
  local ends = string.format('%.0f', now + ttl)
  redis.call('XADD', stream, 'MAXLEN', '=', size, offset .. '-0', 'ends', ends, 'payload', payload)
  trim()
  keep(stream, ttl)
  keep(meta, meta_ttl)
end
if version ~= '' then
  redis.call('HSET', meta, 'version', version, 'version_epoch', version_epoch)
  keep(meta, meta_ttl)
end
if key_ttl ~= '0' then
  redis.call('HSET', KEYS[3], 'offset', offset, 'epoch', epoch)
  redis.call('PEXPIRE', KEYS[3], key_ttl)
end
redis.call('PUBLISH', channel, 't1 ' .. offset .. ' ' .. epoch .. '\\n' .. payload)
return {epoch, offset}
";

/// A stream that stands before what the asker has heard has lost what was there (Redis came back with older data): what
/// will come is another life.
const READ: &str = "
local known = redis.call('HMGET', meta, 'epoch', 'offset')
local epoch, offset = known[1], known[2]
if not epoch or (epoch == ARGV[3] and tonumber(offset) < tonumber(ARGV[4])) then
  epoch, offset = begin(ARGV[2]), '0'
end
keep(meta, ARGV[1])
trim()
local entries = {}
if ARGV[6] ~= '' and (ARGV[5] == '' or ARGV[5] == epoch) then
  if ARGV[9] == '' then
    entries = redis.call(ARGV[6], stream, ARGV[7], ARGV[8])
  else
    entries = redis.call(ARGV[6], stream, ARGV[7], ARGV[8], 'COUNT', ARGV[9])
  end
end
return {epoch, offset, entries}
";

/// A value is the length of the user, a colon, the user, and the message that tells of the leave.
const PRESENCE: &str = "
local function user_and_leave(value)
  local digits = string.match(value, '^%d+')
  local user_end = #digits + 1 + tonumber(digits)
  return string.sub(value, #digits + 2, user_end), string.sub(value, user_end + 1)
end
local function drop(member)
  redis.call('ZREM', KEYS[2], member)
  local value = redis.call('HGET', KEYS[1], member)
  if not value then return nil end
  redis.call('HDEL', KEYS[1], member)
  local user, leave = user_and_leave(value)
  if redis.call('HINCRBY', KEYS[3], user, -1) <= 0 then redis.call('HDEL', KEYS[3], user) end
  return leave
end
local function drop_and_tell(member)
  local leave = drop(member)
  if leave then redis.call('PUBLISH', ARGV[1], leave) end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do drop_and_tell(member) end
";

const ADD: &str = "
for index = 3, #ARGV, 2 do
  local member, value = ARGV[index], ARGV[index + 1]
  if redis.call('HGET', KEYS[1], member) ~= value then
    drop(member)
    redis.call('HSET', KEYS[1], member, value)
    redis.call('HINCRBY', KEYS[3], (user_and_leave(value)), 1)
  end
  redis.call('ZADD', KEYS[2], now + ARGV[2], member)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
";

const REMOVE: &str = "
local remove = ARGV[2] == 'tell' and drop_and_tell or drop
for index = 3, #ARGV do remove(ARGV[index]) end
";
