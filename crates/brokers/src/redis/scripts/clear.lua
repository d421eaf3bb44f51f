-- Removes a stream's history; its position stays. KEYS: stream.
return redis.call('DEL', KEYS[1])
