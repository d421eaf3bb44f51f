-- Records lifecycle events of a node's clients. KEYS: nodes, clients and users of the node, events.
-- ARGV: name of the node, maximum length of the event stream, its TTL and that of the node's
-- records in milliseconds, command and channel of pub/sub, then per client: '+' or '-', client,
-- user, Unix milliseconds, reason. Idempotent.
local online, owners = KEYS[2], KEYS[3]
local place = {events = KEYS[4], size = ARGV[2], publish = ARGV[5], channel = ARGV[6]}
for index = 7, #ARGV, 5 do
  local client, user, at_ms, reason = ARGV[index + 1], ARGV[index + 2], ARGV[index + 3], ARGV[index + 4]
  if ARGV[index] == '+' then
    if redis.call('HSETNX', online, client, user) == 1 then
      redis.call('HINCRBY', owners, user, 1)
      tell(place, 'online', client, user, ARGV[1], at_ms, reason)
    end
  elseif take_out(online, owners, client) then
    tell(place, 'offline', client, user, ARGV[1], at_ms, reason)
  end
end
redis.call('PEXPIRE', place.events, ARGV[3])
redis.call('PEXPIRE', online, ARGV[4])
redis.call('PEXPIRE', owners, ARGV[4])
return 1
