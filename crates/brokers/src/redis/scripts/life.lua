-- How long a temporary channel still is. KEYS: life. ARGV: its whole life in milliseconds, 0 to begin none. Answers how long it has
-- been and how long it will be; nothing when it has no life.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '0' then
  redis.call('SET', KEYS[1], string.format('%.0f', now_ms), 'NX', 'PX', ARGV[1])
end
local began = redis.call('GET', KEYS[1])
if not began then return {} end
return {math.max(now_ms - began, 0), redis.call('PTTL', KEYS[1])}
