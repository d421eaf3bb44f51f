-- Publishes a control message to the nodes that have the client or the user's clients; to all nodes
-- when none is recorded. KEYS: nodes. ARGV: common prefix of the registry's keys, user, client (may
-- be empty), command of pub/sub, message. Returns the number of nodes.
local base, user, client = ARGV[1], ARGV[2], ARGV[3]
local told = 0
for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  local has_it
  if client ~= '' then has_it = redis.call('HEXISTS', base .. 'online:' .. node, client)
  else has_it = redis.call('HEXISTS', base .. 'owners:' .. node, user) end
  if has_it == 1 then
    redis.call(ARGV[4], base .. 'control:' .. node, ARGV[5])
    told = told + 1
  end
end
if told == 0 then redis.call(ARGV[4], base .. 'control', ARGV[5]) end
return told
