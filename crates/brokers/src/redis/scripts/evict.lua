-- Some clients of a node that is gone leave a channel. KEYS: clients, users, ends, channels of the node. ARGV: node, channel,
-- command and channel of pub/sub, where to go on, how many to look at. Subscribers hear of those who were announced. Answers where to
-- go on; '0' when all are gone.
repair()
local page = redis.call('HSCAN', clients, ARGV[5], 'COUNT', ARGV[6])
for index = 1, #page[2], 2 do
  local node, user, announces, info = owner(page[2][index + 1])
  if node == ARGV[1] then
    forget(page[2][index])
    if announces then redis.call(ARGV[3], ARGV[4], 'l' .. info) end
  end
end
if page[1] == '0' then redis.call('SREM', KEYS[4], ARGV[2]) end
return page[1]
