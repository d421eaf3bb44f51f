-- Starts and reads the TTL of a temporary channel. KEYS: begin, mark of an earlier begin, meta,
-- stream. ARGV: TTL in milliseconds, 0 to start none. Returns age and remaining TTL in
-- milliseconds; nothing without a TTL.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '0' and redis.call('SET', KEYS[1], string.format('%.0f', now_ms), 'NX', 'PX', ARGV[1]) then
  -- The previous channel may have had no subscriber to remove its history.
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('DEL', KEYS[3], KEYS[4]) end
  redis.call('SET', KEYS[2], '1', 'PX', string.format('%.0f', 2 * ARGV[1] + 3600000))
end
local began = redis.call('GET', KEYS[1])
if not began then return {} end
return {math.max(now_ms - began, 0), redis.call('PTTL', KEYS[1])}
