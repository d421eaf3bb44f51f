-- Stores a revocation and notifies all nodes, unless a change of its subject that is as late or
-- later is stored. KEYS: changes by subject, subjects by the time at which they expire. ARGV:
-- subject, Unix seconds of its expiry, the change, command and channel of pub/sub. Returns 1 when
-- it is stored, 0 when it has expired, and otherwise the stored change.
local changes, ends = KEYS[1], KEYS[2]
local subject, ends_at, change = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = tonumber(redis.call('TIME')[1])

-- The last eight bytes of a change are its Unix milliseconds. A separate key could be evicted
-- alone, and lost changes could not be stored again.
local function changed_at(text)
  local ms = 0
  for index = #text - 7, #text do ms = ms * 256 + text:byte(index) end
  return ms
end

-- A bounded number at a time, so that the server is not blocked.
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('HDEL', changes, over)
  redis.call('ZREM', ends, over)
end
local known = redis.call('HGET', changes, subject)
if ends_at <= now then return 0 end
if known == change then return 1 end
if known and changed_at(known) >= changed_at(change) then return known end
redis.call('HSET', changes, subject, change)
redis.call('ZADD', ends, ARGV[2], subject)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
for _, key in ipairs(KEYS) do
  -- The expiry is only extended: entries of `ends` may have been evicted.
  if now + redis.call('PTTL', key) / 1000 < tonumber(last[2]) + 60 then
    redis.call('EXPIREAT', key, string.format('%.0f', tonumber(last[2]) + 60))
  end
end
redis.call(ARGV[4], ARGV[5], change)
return 1
