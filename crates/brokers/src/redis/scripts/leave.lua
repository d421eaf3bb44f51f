-- Removes clients of a node from a channel's presence. KEYS: clients, users, ends, channels of the
-- node. ARGV: node, 'last' if no client of the node remains in the channel, channel, clients.
repair()
for index = 4, #ARGV do
  local value = redis.call('HGET', clients, ARGV[index])
  if value and owner(value) == ARGV[1] then forget(ARGV[index]) end
end
if ARGV[2] == 'last' then redis.call('SREM', KEYS[4], ARGV[3]) end
return 1
