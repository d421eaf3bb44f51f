-- Drops what a stream retains; its position stays. KEYS: stream.
return redis.call('DEL', KEYS[1])
