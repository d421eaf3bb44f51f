-- One step of a node's cleanup: sets some of its clients offline; the last step removes the node.
-- KEYS: nodes, clients and users of the node, events, names, claims, options. ARGV: node, maximum
-- length of the event stream, its TTL in milliseconds, command and channel of pub/sub, offline
-- reason, number of clients to scan, 'self' if the node removes itself, cursor. Returns the number
-- of remaining clients and the next cursor; -1 when the node has renewed its lease.
local node, now = ARGV[1], now_ms()
local online, owners, names, claims = KEYS[2], KEYS[3], KEYS[5], KEYS[6]
local place = {events = KEYS[4], size = ARGV[2], publish = ARGV[4], channel = ARGV[5]}
local ends = redis.call('ZSCORE', nodes, node)
if ARGV[8] ~= 'self' and ends and tonumber(ends) >= now then return {-1, '0'} end
local name = redis.call('HGET', names, node) or node
-- A hash with many removed fields returns empty pages.
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
