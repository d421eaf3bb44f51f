-- Stores a change of what is revoked, unless one of its subject is stored that is as late or later,
-- and notifies all nodes. KEYS: changes by subject, subjects by the time at which they end. ARGV:
-- subject, Unix seconds of its end, the change, command and channel of pub/sub. Answers 1 when it is
-- stored, 0 when it has expired, and otherwise the change that stays.
local changes, ends = KEYS[1], KEYS[2]
local subject, ends_at, change = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = tonumber(redis.call('TIME')[1])

-- A change ends with the Unix milliseconds at which it was made, in eight bytes. A key of their own
-- could be evicted alone, and what is lost then could not be stored again.
local function changed_at(text)
  local ms = 0
  for index = #text - 7, #text do ms = ms * 256 + text:byte(index) end
  return ms
end

-- Some at a time: a node that was away for long must not hold up the server.
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
  -- Only ever later: changes may have ends that were evicted.
  if now + redis.call('PTTL', key) / 1000 < tonumber(last[2]) + 60 then
    redis.call('EXPIREAT', key, string.format('%.0f', tonumber(last[2]) + 60))
  end
end
redis.call(ARGV[4], ARGV[5], change)
return 1
