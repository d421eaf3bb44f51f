-- Renews the lease of a node. KEYS: nodes, names, claims, clients and users of the node, options.
-- ARGV: node, name, lease and TTL of the registry in milliseconds, 'free' if the node can take on a
-- cleanup, number of clients whose events it has sent (empty while events are in flight), digest
-- and text of its channel options, command and channel of pub/sub, the message that makes all nodes
-- renew. Returns whether the lease was still valid, the time in Unix milliseconds, a node to clean
-- up (empty for none), another live node of the same name (empty for none), whether the node's
-- client records are complete (empty if unknown), and for each other live node its id, name, and
-- its options where they differ.
local node, name, lease, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local names, claims = KEYS[2], KEYS[3]
local now = now_ms()
local ends = redis.call('ZSCORE', nodes, node)
-- A claimed node may have been cleaned up in part.
local lasted = ends and tonumber(ends) >= now and redis.call('HEXISTS', claims, node) == 0
redis.call('ZADD', nodes, as_text(now + lease), node)
redis.call('HSET', names, node, name)
redis.call('HDEL', claims, node)

-- Compares the client records with the number that the node has sent, and with the counts by user.
-- If they differ, both are removed, and the node sends them again.
local function is_whole(online, owners, told)
  if told == '' then return '' end
  local marked, counted = redis.call('HEXISTS', online, WHOLE), redis.call('HEXISTS', owners, WHOLE)
  if redis.call('HLEN', online) - marked == tonumber(told) and marked == counted then
    if told == '0' then
      redis.call('DEL', online, owners)
      return 1
    end
    if marked == 1 then return 1 end
    local sum = 0
    for _, clients in ipairs(redis.call('HVALS', owners)) do sum = sum + clients end
    if sum == tonumber(told) then
      redis.call('HSET', online, WHOLE, '')
      redis.call('HSET', owners, WHOLE, 0)
      return 1
    end
  end
  redis.call('DEL', online, owners)
  return 0
end
local whole = is_whole(KEYS[4], KEYS[5], lasted and ARGV[6] or '')

local options = KEYS[6]
local mine = ARGV[7] .. ' ' .. ARGV[8]
if ARGV[7] ~= '' and redis.call('HGET', options, node) ~= mine then
  redis.call('HSET', options, node, mine)
  -- Publishers must know the options before a client recovers on this node.
  redis.call(ARGV[9], ARGV[10], ARGV[11])
end
for index = 1, 6 do redis.call('PEXPIRE', KEYS[index], ttl) end

local twin, others = '', {}
for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, as_text(now), '+inf')) do
  if other ~= node then
    local other_name, theirs = redis.call('HGET', names, other) or other, redis.call('HGET', options, other) or ''
    if other_name == name then twin = other end
    local digest, text = string.match(theirs, '^(%S*) (.*)$')
    others[#others + 1] = other
    others[#others + 1] = other_name
    others[#others + 1] = digest ~= ARGV[7] and text or ''
  end
end
-- After an outage of Redis all leases have expired; the other nodes get time to renew.
local dead = ''
if lasted and ARGV[5] == 'free' then
  -- A node with a name but no lease was evicted, and gets one lease to renew.
  for _, other in ipairs(redis.call('HKEYS', names)) do
    if not redis.call('ZSCORE', nodes, other) then redis.call('ZADD', nodes, as_text(now + lease), other) end
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. as_text(now))) do
    local claimed = redis.call('HGET', claims, other)
    if not claimed or tonumber(claimed) < now then
      redis.call('HSET', claims, other, as_text(now + lease))
      dead = other
      break
    end
  end
end
return {lasted and 1 or 0, now, dead, twin, whole, others}
