-- A temporary channel is over, unless it has begun anew. KEYS: life, mark of an earlier life, meta, stream.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
