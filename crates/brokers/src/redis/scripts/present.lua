-- KEYS: clients, users, ends. Answers the infos.
forget_ended()
local infos = {}
for index, value in ipairs(redis.call('HVALS', clients)) do
  local _, length, rest = string.match(value, '^([^:]*):(%d+):()')
  infos[index] = string.sub(value, rest + length)
end
return infos
