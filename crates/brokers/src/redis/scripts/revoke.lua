-- Keeps a change of what is revoked, unless a later one of its subject is kept, and tells all nodes. KEYS: changes by subject,
-- times of change by subject, subjects by the time at which they end. ARGV: subject, Unix milliseconds of the change, Unix
-- seconds of its end, the change, command and channel of pub/sub. Answers whether it is kept.
local changes, times, ends = KEYS[1], KEYS[2], KEYS[3]
local subject, changed_at, ends_at = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(redis.call('TIME')[1])

-- Some at a time: a node that was away for long must not hold up the server.
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('HDEL', changes, over)
  redis.call('HDEL', times, over)
  redis.call('ZREM', ends, over)
end
local known = redis.call('HGET', times, subject)
if ends_at <= now or (known and tonumber(known) >= changed_at) then return 0 end
redis.call('HSET', changes, subject, ARGV[4])
redis.call('HSET', times, subject, ARGV[2])
redis.call('ZADD', ends, ARGV[3], subject)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
for _, key in ipairs(KEYS) do redis.call('EXPIREAT', key, string.format('%.0f', tonumber(last[2]) + 60)) end
redis.call(ARGV[5], ARGV[6], ARGV[4])
return 1
