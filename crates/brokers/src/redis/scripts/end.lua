-- Removes an expired temporary channel, unless it has begun again. KEYS: begin, mark of an earlier
-- begin, meta, stream.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
