-- Renews the lease of a node. KEYS: nodes, names, claims, clients and users of the node. ARGV: node, name, lease and TTL of
-- what is kept for it, in milliseconds, whether it has time to clear another one away. Answers whether the lease had lasted, the time, a
-- node whose lease has ended and that is for this one to clear away, and another living node of the same name; empty for none.
local node, name, lease, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local names, claims = KEYS[2], KEYS[3]
local now = now_ms()
local ends = redis.call('ZSCORE', nodes, node)
-- Whoever was claimed may have been cleared away in part.
local lasted = ends and tonumber(ends) >= now and redis.call('HEXISTS', claims, node) == 0
redis.call('ZADD', nodes, as_text(now + lease), node)
redis.call('HSET', names, node, name)
redis.call('HDEL', claims, node)
for index = 1, 5 do redis.call('PEXPIRE', KEYS[index], ttl) end

local twin = ''
for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, as_text(now), '+inf')) do
  if other ~= node and redis.call('HGET', names, other) == name then twin = other end
end
-- If Redis was away for longer than a lease, all leases have ended: the others have time to say that they live.
local dead = ''
if lasted and ARGV[5] == 'free' then
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. as_text(now))) do
    local claimed = redis.call('HGET', claims, other)
    if not claimed or tonumber(claimed) < now then
      redis.call('HSET', claims, other, as_text(now + lease))
      dead = other
      break
    end
  end
end
return {lasted and 1 or 0, now, dead, twin}
