-- One step of removing a failed node's clients from a channel, with leave announcements. KEYS:
-- clients, users, ends, channels of the node. ARGV: node, channel, command and channel of pub/sub,
-- cursor, number of clients to scan. If the channel of pub/sub is empty, nothing is announced.
-- Returns the next cursor, '0' at the end, and the clients whose leaves remain to be announced.
repair()
local left = {}
local page = redis.call('HSCAN', clients, ARGV[5], 'COUNT', ARGV[6])
for index = 1, #page[2], 2 do
  local node, user, announces, info = owner(page[2][index + 1])
  if node == ARGV[1] then
    forget(page[2][index])
    if announces and ARGV[4] == '' then
      left[#left + 1] = info
    elseif announces then
      redis.call(ARGV[3], ARGV[4], 'l' .. info)
    end
  end
end
if page[1] == '0' then redis.call('SREM', KEYS[4], ARGV[2]) end
return { page[1], left }
