-- Shared by the registry scripts. KEYS[1]: nodes by the time at which their leases end. Keys of one
-- node contain its id, and all registry keys share one tag.
local nodes = KEYS[1]

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- Field in both hashes of a node's clients that marks them as complete. Redis may evict each key
-- separately.
local WHOLE = '\0'

local function as_text(number) return string.format('%.0f', number) end

-- Sends a lifecycle event: to the stream for backends, and to current subscribers.
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
