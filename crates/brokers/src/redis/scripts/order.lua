-- An order goes to the nodes that have the client, or the user's clients; to all when nobody is known to have them. KEYS:
-- nodes. ARGV: what the keys of nodes begin with, user, client or nothing, command of pub/sub, order. Answers to how many.
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
