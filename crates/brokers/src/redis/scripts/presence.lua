-- Shared by the presence scripts. KEYS: clients, users, ends. ARGV: node, ... A client's value is
-- its node, 1 if its leave is announced, the length of the user's name, user and info. `users`
-- counts clients by user; `ends` holds the time at which a client's presence ends unless renewed.
-- Redis may evict each of these keys when its memory is full, which shows in their sizes.
local clients, users, ends = KEYS[1], KEYS[2], KEYS[3]

-- Field of `users`: the number of clients counted.
local COUNTED = '\0'

local function owner(value)
  local node, announces, length, rest = string.match(value, '^([^:]*):([01]):(%d+):()')
  return node, string.sub(value, rest, rest + length - 1), announces == '1', string.sub(value, rest + length)
end

local function count(user, change)
  if redis.call('HINCRBY', users, user, change) <= 0 then
    redis.call('HDEL', users, user)
  end
  if redis.call('HINCRBY', users, COUNTED, change) <= 0 then
    redis.call('DEL', users)
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

-- Rebuilds `users` and `ends` from `clients` when their sizes differ.
local function repair()
  local size = redis.call('HLEN', clients)
  local counted = tonumber(redis.call('HGET', users, COUNTED) or '0')
  if size == counted and size == redis.call('ZCARD', ends) then return end
  local known = {}
  local kept = redis.call('ZRANGE', ends, 0, -1, 'WITHSCORES')
  for index = 1, #kept, 2 do known[kept[index]] = kept[index + 1] end
  redis.call('DEL', users, ends)
  local left = math.max(redis.call('PTTL', clients), 0)
  local until_ms = string.format('%.0f', now_ms() + left)
  local all = redis.call('HGETALL', clients)
  for index = 1, #all, 2 do
    local _, user = owner(all[index + 1])
    count(user, 1)
    redis.call('ZADD', ends, known[all[index]] or until_ms, all[index])
  end
  if left > 0 then
    redis.call('PEXPIRE', users, left)
    redis.call('PEXPIRE', ends, left)
  end
end

local function forget_ended()
  repair()
  while true do
    local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now_ms()), 'LIMIT', 0, 1000)
    for _, client in ipairs(ended) do forget(client) end
    if #ended < 1000 then break end
  end
end
