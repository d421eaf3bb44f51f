-- Remaining TTL of a temporary channel. KEYS: begin, mark of an earlier begin, meta, stream. ARGV: its whole TTL in milliseconds, 0
-- to begin none. Answers how long it has been and how long it will be; nothing when it has no TTL.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '0' and redis.call('SET', KEYS[1], string.format('%.0f', now_ms), 'NX', 'PX', ARGV[1]) then
  -- Nobody may have been there to end the one before.
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('DEL', KEYS[3], KEYS[4]) end
  redis.call('SET', KEYS[2], '1', 'PX', string.format('%.0f', 2 * ARGV[1] + 3600000))
end
local began = redis.call('GET', KEYS[1])
if not began then return {} end
return {math.max(now_ms - began, 0), redis.call('PTTL', KEYS[1])}
