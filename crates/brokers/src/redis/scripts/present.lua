-- KEYS: clients, users, ends. Answers the infos.
forget_ended()
local infos = {}
for index, value in ipairs(redis.call('HVALS', clients)) do
  local _, _, _, info = owner(value)
  infos[index] = info
end
return infos
