-- Publishes to a channel: at most once by idempotency key, refuses outdated versions, assigns the
-- offset, retains and publishes. KEYS: meta, stream, and the idempotency record if there is a key.
-- ARGV: the pub/sub channel, the command that publishes, the payload, history size, history TTL,
-- meta TTL, an unused epoch, TTL of the idempotency record, version, version epoch, replication id
-- of the server; TTLs in milliseconds. A promoted or restarted server may lack the last
-- publications and would assign their offsets again, so a stream's epoch ends when the replication
-- id changes. Returns offset and epoch.
local meta, stream, once = KEYS[1], KEYS[2], KEYS[3]
local size, ttl, meta_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local key_ttl, version, version_epoch = ARGV[8], ARGV[9], ARGV[10]

local function outlive(key, ms)
  if ms > 0 and redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, string.format('%.0f', ms))
  end
end

if once then
  local seen = redis.call('GET', once)
  if seen then
    local offset, epoch = string.match(seen, '^(%d+):(.*)$')
    return {offset, epoch}
  end
end
if version ~= '0' then
  local known = redis.call('HMGET', meta, 'v', 've', 's', 'e')
  local last = known[1] or '0'
  -- Compared as text: Lua numbers are exact up to 2^53 only.
  local is_newer = #version > #last or (#version == #last and version > last)
  if not is_newer and (version_epoch == '' or version_epoch == (known[2] or '')) then
    return {known[3] or '0', known[4] or ''}
  end
end

local offset, epoch = '0', ''
if size > 0 then
  local known = redis.call('HMGET', meta, 'e', 'r')
  epoch = known[1]
  if not epoch then
    redis.call('HSET', meta, 's', '0')
    redis.call('DEL', stream)
  end
  if not epoch or known[2] ~= ARGV[11] then
    epoch = ARGV[7]
    redis.call('HSET', meta, 'e', epoch, 'r', ARGV[11])
  end
  offset = string.format('%.0f', redis.call('HINCRBY', meta, 's', 1))
  local now = redis.call('TIME')
  local ends = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ttl)
  redis.call('XADD', stream, 'MAXLEN', '=', ARGV[4], offset .. '-0', 'x', ends, 'd', ARGV[3])
  outlive(stream, ttl)
  outlive(meta, math.max(meta_ttl, 1))
end
if version ~= '0' then
  redis.call('HSET', meta, 'v', version, 've', version_epoch)
  outlive(meta, math.max(meta_ttl, tonumber(key_ttl)))
end
if once then
  redis.call('SET', once, offset .. ':' .. epoch, 'PX', key_ttl)
end
redis.call(ARGV[2], ARGV[1], 'p' .. offset .. ':' .. epoch .. ':' .. ARGV[3])
return {offset, epoch}
