-- Common to the scripts of presence. KEYS: clients, users, ends. ARGV: node, ...
-- A client is kept as node, whether its leave is told, length of the user's name, user, info; users are counted; `ends` says when whom nobody
-- renewed has left.
local clients, users, ends = KEYS[1], KEYS[2], KEYS[3]

local function owner(value)
  local node, announces, length, rest = string.match(value, '^([^:]*):([01]):(%d+):()')
  return node, string.sub(value, rest, rest + length - 1), announces == '1', string.sub(value, rest + length)
end

local function count(user, change)
  if redis.call('HINCRBY', users, user, change) <= 0 then
    redis.call('HDEL', users, user)
  end
end

local function forget(client)
  local value = redis.call('HGET', clients, client)
  if value then
    local _, user = owner(value)
    count(user, -1)
    redis.call('HDEL', clients, client)
  end
  redis.call('ZREM', ends, client)
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function forget_ended()
  while true do
    local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now_ms()), 'LIMIT', 0, 1000)
    for _, client in ipairs(ended) do forget(client) end
    if #ended < 1000 then break end
  end
end
