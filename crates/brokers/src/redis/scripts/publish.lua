-- Publishes to channels, in the order of the arguments: at most once by idempotency key, refuses
-- outdated versions, assigns offsets, retains and publishes. Consecutive publications of a channel
-- with the same options are a run, which gets consecutive offsets; a publication with an
-- idempotency key or a version is a run by itself. KEYS of each run: meta, stream, and the
-- idempotency record if there is a key. ARGV: the command that publishes, replication id of the
-- server, an unused epoch, TTL of idempotency records; then of each run: the pub/sub channel,
-- history size, history TTL, meta TTL, version, version epoch, whether it has an idempotency key (1
-- or 0), the number of publications, and their payloads. TTLs in milliseconds. A promoted or
-- restarted server may lack the last publications and would assign their offsets again, so a
-- stream's epoch ends when the replication id changes. Returns of each run the first offset and the
-- epoch, or an error, which affects no other run.
local publish, replication_id, unused_epoch, key_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A long TTL gets half a second more, so that a busy channel extends its keys rarely.
local function outlive(key, ms)
  if ms > 0 and redis.call('PTTL', key) < ms then
    if ms >= 60000 then ms = ms + 500 end
    redis.call('PEXPIRE', key, string.format('%.0f', ms))
  end
end

local function publish_run(meta, stream, once, at)
  local name, size, ttl, meta_ttl = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local version, version_epoch, count = ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 7])
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

  local first, epoch, is_kept = 0, '', size ~= '0'
  if is_kept then
    local known = redis.call('HMGET', meta, 'e', 'r')
    epoch = known[1]
    if not epoch then
      redis.call('HSET', meta, 's', '0')
      redis.call('DEL', stream)
    end
    if not epoch or known[2] ~= replication_id then
      epoch = unused_epoch
      redis.call('HSET', meta, 'e', epoch, 'r', replication_id)
    end
    first = redis.call('HINCRBY', meta, 's', count) - count + 1
  end
  local ends, tail = string.format('%.0f', now + ttl), ':' .. epoch .. ':'
  for index = 0, count - 1 do
    local offset, payload = '0', ARGV[at + 8 + index]
    if is_kept then
      offset = string.format('%.0f', first + index)
      redis.call('XADD', stream, 'MAXLEN', '=', size, offset .. '-0', 'x', ends, 'd', payload)
    end
    if version ~= '0' then
      redis.call('HSET', meta, 'v', version, 've', version_epoch)
      outlive(meta, math.max(meta_ttl, tonumber(key_ttl)))
    end
    if once then redis.call('SET', once, offset .. ':' .. epoch, 'PX', key_ttl) end
    redis.call(publish, name, 'p' .. offset .. tail .. payload)
  end
  if is_kept then
    outlive(stream, ttl)
    outlive(meta, math.max(meta_ttl, 1))
  end
  return {string.format('%.0f', first), epoch}
end

local results, key, at = {}, 1, 5
while at <= #ARGV do
  local once = nil
  if ARGV[at + 6] == '1' then once = KEYS[key + 2] end
  local ok, result = pcall(publish_run, KEYS[key], KEYS[key + 1], once, at)
  -- Redis 6 raises errors as text, later ones as a table.
  if not ok then result = {err = type(result) == 'table' and result.err or result} end
  results[#results + 1] = result
  key = key + (once and 3 or 2)
  at = at + 8 + tonumber(ARGV[at + 7])
end
return results
