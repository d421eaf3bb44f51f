-- Counts presence. KEYS: clients, users, ends. Returns the numbers of clients and users.
forget_ended()
return {redis.call('HLEN', clients), redis.call('HLEN', users) - redis.call('HEXISTS', users, COUNTED)}
