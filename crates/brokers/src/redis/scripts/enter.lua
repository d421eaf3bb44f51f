-- Adds clients to a channel's presence, or renews them. KEYS: clients, users, ends, channels of the
-- node. ARGV: node, TTL in milliseconds, channel, then per client: client, user, info, and 1 if its
-- leave is announced.
local node, ttl = ARGV[1], tonumber(ARGV[2])
repair()
local until_ms = string.format('%.0f', now_ms() + ttl)
for index = 4, #ARGV, 4 do
  local client, user = ARGV[index], ARGV[index + 1]
  local value = redis.call('HGET', clients, client)
  local _, before
  if value then _, before = owner(value) end
  if before ~= user then
    if before then count(before, -1) end
    count(user, 1)
  end
  redis.call('HSET', clients, client, node .. ':' .. ARGV[index + 3] .. ':' .. #user .. ':' .. user .. ARGV[index + 2])
  redis.call('ZADD', ends, until_ms, client)
end
redis.call('SADD', KEYS[4], ARGV[3])
-- Longer than any entry, so that the keys expire together.
for index = 1, 4 do redis.call('PEXPIRE', KEYS[index], 2 * ttl) end
return 1
