-- Reads a stream's position and a range of it. A stream begins when it is first read, but expires
-- soon without a publication. KEYS: meta, stream. ARGV: an unused epoch, meta TTL, TTL of an empty
-- stream, first id, last id, limit (-1 for none, 0 for the position only), direction, epoch of the
-- ids (may be empty), replication id of the server (see publish.lua), maximum bytes of entries.
-- Returns epoch, offset, whether the ids belong to this epoch, the entries, and the bytes of the
-- next entry if it exceeded the maximum.
local meta, stream = KEYS[1], KEYS[2]
local ttl, limit = tonumber(ARGV[2]), tonumber(ARGV[6])
local known = redis.call('HMGET', meta, 'e', 's', 'r')
local epoch, offset = known[1], known[2] or '0'
if not epoch then
  offset = '0'
  redis.call('HSET', meta, 's', '0')
  redis.call('DEL', stream)
end
if not epoch or known[3] ~= ARGV[9] then
  epoch = ARGV[1]
  redis.call('HSET', meta, 'e', epoch, 'r', ARGV[9])
end
if offset == '0' then ttl = math.max(math.min(ttl, tonumber(ARGV[3])), 1000) end
if ttl > 0 and redis.call('PTTL', meta) < ttl then
  redis.call('PEXPIRE', meta, string.format('%.0f', ttl))
end
if ARGV[8] ~= '' and ARGV[8] ~= epoch then return {epoch, offset, 0, {}, 0} end
if limit == 0 then return {epoch, offset, 1, {}, 0} end

-- Removes expired publications, oldest first.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local looked_at = 1
while true do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', looked_at)
  local keep = nil
  for _, entry in ipairs(oldest) do
    if tonumber(entry[2][2]) > now_ms then
      keep = entry[1]
      break
    end
  end
  if #oldest == 0 or keep == oldest[1][1] then break end
  if keep then
    redis.call('XTRIM', stream, 'MINID', '=', keep)
    break
  end
  redis.call('XTRIM', stream, 'MINID', '=', string.match(oldest[#oldest][1], '^%d+') .. '-1')
  looked_at = 64
end

-- Bytes of an entry beside its publication: id, expiry and RESP lengths.
local ENTRY = 96
local command, from, to = 'XRANGE', ARGV[4], ARGV[5]
if ARGV[7] == 'reverse' then command, from, to = 'XREVRANGE', to, from end
local entries, size, budget, count = {}, 0, tonumber(ARGV[10]), 8
while true do
  if limit > 0 then count = math.min(count, limit - #entries) end
  if count == 0 then break end
  local found = redis.call(command, stream, from, to, 'COUNT', count)
  for _, entry in ipairs(found) do
    local bytes = #entry[2][4] + ENTRY
    if size + bytes > budget then return {epoch, offset, 1, entries, bytes} end
    size = size + bytes
    entries[#entries + 1] = entry
  end
  if #found < count then break end
  from = '(' .. found[count][1]
  count = math.min(2 * count, 256)
end
return {epoch, offset, 1, entries, 0}
