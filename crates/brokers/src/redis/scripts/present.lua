-- Returns one page of a channel's clients. KEYS: clients, users, ends. ARGV: cursor, minimum bytes
-- of a page. Returns the next cursor, '0' at the end, and the clients' infos.
if ARGV[1] == '0' then forget_ended() end
local cursor, budget = ARGV[1], tonumber(ARGV[2])
local infos, size = {}, 0
repeat
  local page = redis.call('HSCAN', clients, cursor, 'COUNT', 32)
  cursor = page[1]
  for index = 2, #page[2], 2 do
    local _, _, _, info = owner(page[2][index])
    infos[#infos + 1] = info
    size = size + #info
  end
until cursor == '0' or size >= budget
return {cursor, infos}
