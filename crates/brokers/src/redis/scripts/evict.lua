-- The clients of a node that is gone leave a channel. KEYS: clients, users, ends, channels of the node. ARGV: node, channel,
-- command and channel of pub/sub. Subscribers hear of those who were announced.
for _, client in ipairs(redis.call('HKEYS', clients)) do
  local value = redis.call('HGET', clients, client)
  local node, user, announces, info = owner(value)
  if node == ARGV[1] then
    forget(client)
    if announces then redis.call(ARGV[3], ARGV[4], 'l' .. info) end
  end
end
redis.call('SREM', KEYS[4], ARGV[2])
return 1
