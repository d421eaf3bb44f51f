-- Some clients of a node that is gone are offline; with the last of them the node is forgotten. KEYS: nodes, clients and
-- users of the node, events, names, claims, options. ARGV: node, size of the stream of events, its TTL, command and channel of pub/sub,
-- reason, how many to look at, whether the node says so itself, where to go on. Answers how many are left and where to go on; -1 when
-- the node lives again.
local node, now = ARGV[1], now_ms()
local online, owners, names, claims = KEYS[2], KEYS[3], KEYS[5], KEYS[6]
local place = {events = KEYS[4], size = ARGV[2], publish = ARGV[4], channel = ARGV[5]}
local ends = redis.call('ZSCORE', nodes, node)
if ARGV[8] ~= 'self' and ends and tonumber(ends) >= now then return {-1, '0'} end
local name = redis.call('HGET', names, node) or node
-- Where many are gone already, many places are empty.
local cursor, found = ARGV[9], {}
for _ = 1, 50 do
  local page = redis.call('HSCAN', online, cursor, 'COUNT', ARGV[7])
  cursor, found = page[1], page[2]
  if #found > 0 or cursor == '0' then break end
end
for index = 1, #found, 2 do
  local client = found[index]
  local user = client ~= WHOLE and take_out(online, owners, client)
  if user then tell(place, 'offline', client, user, name, as_text(now), ARGV[6]) end
end
if #found > 0 then redis.call('PEXPIRE', place.events, ARGV[3]) end
local left = redis.call('HLEN', online) - redis.call('HEXISTS', online, WHOLE)
if left == 0 then
  redis.call('DEL', online, owners)
  redis.call('HDEL', KEYS[7], node)
  redis.call('ZREM', nodes, node)
  redis.call('HDEL', names, node)
  redis.call('HDEL', claims, node)
end
return {left, cursor}
