-- Health check: executes what the broker needs of a server, and publishes to the node itself. KEYS:
-- a key of the node. ARGV: the pub/sub channel, the command that publishes, and "all" to try every
-- command in the scripts, each of which an ACL may deny. Publishing comes last, so the node
-- receives the message only when everything is allowed.
local key = KEYS[1]
local now = redis.call('TIME')
redis.call('SET', key, now[1], 'PX', '60000')
if ARGV[3] == 'all' then
  redis.call('GET', key)
  redis.call('EXISTS', key)
  redis.call('PTTL', key)
  redis.call('PEXPIRE', key, '60000')
  redis.call('EXPIREAT', key, now[1] + 60)
  redis.call('DEL', key)
  redis.call('HSET', key, 'a', '1')
  redis.call('HSETNX', key, 'b', '1')
  redis.call('HINCRBY', key, 'a', '1')
  redis.call('HMGET', key, 'a', 'b')
  for _, command in ipairs({'HGETALL', 'HKEYS', 'HVALS', 'HLEN'}) do redis.call(command, key) end
  for _, command in ipairs({'HGET', 'HEXISTS', 'HDEL'}) do redis.call(command, key, 'a') end
  redis.call('HSCAN', key, '0')
  redis.call('DEL', key)
  redis.call('XADD', key, 'MAXLEN', '=', '1', '1-0', 'x', '1')
  redis.call('XRANGE', key, '-', '+')
  redis.call('XREVRANGE', key, '+', '-')
  redis.call('XTRIM', key, 'MINID', '=', '2-0')
  redis.call('DEL', key)
  redis.call('ZADD', key, '1', 'a')
  redis.call('ZCARD', key)
  redis.call('ZRANGE', key, '0', '-1')
  redis.call('ZRANGEBYSCORE', key, '-inf', '+inf')
  redis.call('ZSCORE', key, 'a')
  redis.call('ZREM', key, 'a')
  redis.call('SADD', key, 'a')
  redis.call('SREM', key, 'a')
end
redis.call('DEL', key)
redis.call(ARGV[2], ARGV[1], '')
return 1
