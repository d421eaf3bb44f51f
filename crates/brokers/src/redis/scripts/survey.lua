-- Sends a survey question to all nodes. KEYS: nodes. ARGV: command and channel of pub/sub,
-- question. Returns the live nodes.
redis.call(ARGV[1], ARGV[2], ARGV[3])
return redis.call('ZRANGEBYSCORE', nodes, as_text(now_ms()), '+inf')
