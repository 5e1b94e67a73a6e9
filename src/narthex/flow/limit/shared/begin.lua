-- A gateway begins to count here: with a fresh name, and once what its ledger knows is counted.
--
-- KEYS: the ledgers (hash), the gateways that live (hash). ARGV: ledger, holder, the one before it ('' for none), lease
-- in microseconds, the token under which it has restored ('' for none).
-- Returned: state, now, token, the last request of the holder before that was done (-1: nobody knows).
-- State 0: it may count. 1: another restores what the same ledger knows. 2: it is to do so.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ledger, holder, before, lease, restored = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local function text(number) return string.format('%.0f', number) end

local all, done = redis.call('HGETALL', KEYS[2]), -1
for i = 1, #all, 2 do  -- what a gateway held that lives no more is forgotten with its name
  local expires, number = string.match(all[i + 1], '^(%d+) (%d+)$')
  if all[i] == before then done = tonumber(number) end
  if all[i] == before or tonumber(expires) <= now then redis.call('HDEL', KEYS[2], all[i]) end
end
redis.call('HSET', KEYS[2], holder, text(now + lease) .. ' 0')

local said = redis.call('HGET', KEYS[1], ledger)
if said and said == restored then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, #ledger + 1) == ledger .. ':' then redis.call('HDEL', KEYS[1], field) end
  end
  said = 'r' .. string.match(said, '^b%d+:(%d+)')
  redis.call('HSET', KEYS[1], ledger, said)
end
if said and string.sub(said, 1, 1) == 'r' then return {0, text(now), said, done} end
if said then
  local expires, _, who = string.match(said, '^b(%d+):(%d+):(%d*)')
  if tonumber(expires) > now and who ~= holder and who ~= before then return {1, text(now), '', done} end
end
said = 'b' .. text(now + lease) .. ':' .. text(now) .. ':' .. holder
redis.call('HSET', KEYS[1], ledger, said)
return {2, text(now), said, done}
