-- Renews the lease of a node. KEYS: nodes, names, claims, clients and users of the node, options. ARGV: node, name, lease and TTL
-- of what is kept for it, in milliseconds, whether it has time to clear another one away, how many clients it has told of (empty
-- while that changes), digest and text of its channel options, command and channel of pub/sub, what asks all nodes to look.
-- Answers whether the lease had lasted, the time, a node whose lease has ended and that is for this one to clear away, another
-- living node of the same name (empty for none), whether what is kept of the node's clients is whole (empty when that is not
-- known), and of all others that live node, name, and options where they differ.
local node, name, lease, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local names, claims = KEYS[2], KEYS[3]
local now = now_ms()
local ends = redis.call('ZSCORE', nodes, node)
-- Whoever was claimed may have been cleared away in part.
local lasted = ends and tonumber(ends) >= now and redis.call('HEXISTS', claims, node) == 0
redis.call('ZADD', nodes, as_text(now + lease), node)
redis.call('HSET', names, node, name)
redis.call('HDEL', claims, node)

-- A set of clients that is not what the node has told, or not what is kept of their users, begins anew.
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
  -- Whoever publishes must know before somebody recovers here.
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
-- If Redis was away for longer than a lease, all leases have ended: the others have time to say that they live.
local dead = ''
if lasted and ARGV[5] == 'free' then
  -- One that is named only was dropped, and has the time of a lease to say that it lives.
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
