-- One step of removing a failed node's clients from a channel. KEYS: clients, users, ends, channels
-- of the node. ARGV: node, channel, command and channel of pub/sub, cursor, number of clients to
-- scan, clients whose leaves another broker has published. With a channel of pub/sub the step
-- removes the clients that it scans and announces their leaves. If the channel of pub/sub is empty,
-- it removes clients whose leaves are published or need not be, and returns the others. Returns the
-- next cursor, '0' at the end, and the clients whose leaves remain to be published. When there are
-- any at the end, the channel remains, and is scanned again.
repair()
for index = 7, #ARGV do
  local value = redis.call('HGET', clients, ARGV[index])
  if value and owner(value) == ARGV[1] then forget(ARGV[index]) end
end
local left = {}
local page = redis.call('HSCAN', clients, ARGV[5], 'COUNT', ARGV[6])
for index = 1, #page[2], 2 do
  local node, user, announces, info = owner(page[2][index + 1])
  if node == ARGV[1] then
    if announces and ARGV[4] == '' then
      left[#left + 1] = info
    else
      forget(page[2][index])
      if announces then redis.call(ARGV[3], ARGV[4], 'l' .. info) end
    end
  end
end
if page[1] == '0' and #left == 0 then redis.call('SREM', KEYS[4], ARGV[2]) end
return { page[1], left }
