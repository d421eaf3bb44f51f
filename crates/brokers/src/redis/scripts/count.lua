-- KEYS: clients, users, ends. Answers how many of both.
forget_ended()
return {redis.call('HLEN', clients), redis.call('HLEN', users) - redis.call('HEXISTS', users, COUNTED)}
