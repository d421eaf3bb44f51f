-- Common to the scripts of nodes and their clients. KEYS[1]: the nodes, by the time at which their leases end. What belongs
-- to one node has its id in its key, and all keys here have one tag.
local nodes = KEYS[1]

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- A field of both hashes of a node's clients, which says that they were found to be whole. Redis may drop keys when its memory is
-- full, each for itself.
local WHOLE = '\0'

local function as_text(number) return string.format('%.0f', number) end

-- Tells of a client: in the stream for backends and to those who listen now.
local function tell(place, event, client, user, name, at_ms, reason)
  local json = '{"event":"' .. event .. '","client_id":' .. cjson.encode(client) .. ',"user_id":' .. cjson.encode(user)
    .. ',"node_id":' .. cjson.encode(name) .. ',"timestamp":' .. at_ms .. ',"reason":' .. cjson.encode(reason) .. '}'
  redis.call('XADD', place.events, 'MAXLEN', '~', place.size, '*', 'event', json)
  redis.call(place.publish, place.channel, 'e' .. at_ms .. ':' .. json)
end

local function take_out(online, owners, client)
  local user = redis.call('HGET', online, client)
  if not user then return nil end
  redis.call('HDEL', online, client)
  if redis.call('HINCRBY', owners, user, -1) <= 0 then redis.call('HDEL', owners, user) end
  return user
end
