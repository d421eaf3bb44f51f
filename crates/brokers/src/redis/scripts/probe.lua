-- What this server must be able to do: scripts, the time, writing, publishing; and a node hears itself. KEYS: a key of the node. ARGV:
-- the pub/sub channel, the command that publishes.
local now = redis.call('TIME')
redis.call('SET', KEYS[1], now[1], 'PX', '60000')
redis.call('DEL', KEYS[1])
redis.call(ARGV[2], ARGV[1], '')
return 1
