-- All that calls of one moment want of the shared counters, in one step: each call takes what it needs of all its
-- buckets, or of none. It does what `algorithms.py` does, on the server's time; `tests/flow/limit/shared` plays both
-- side by side.
--
-- KEYS: the ledgers (hash), the gateways that live (hash), then the buckets.
-- ARGV[1], MessagePack: ledger, token, holder, its count of requests, lease, chunk, specs, the spec of each bucket,
-- and operations (flat):
--   1 reserve: 1, n, n x (bucket, amount)          -> 1, n x (used, resets); or 0, the same, who stands in the way, wait
--   2 correct: 2, n, n x (bucket, change, at, lacked)  -> m, m x (which, share, used): shares that are reached
--   3 look:    3, n, n x bucket                    -> n x (used, resets)
-- Of a token bucket `resets` is what is lacking in it, in its parts, and `lacked` the same of when it was taken.
-- Returned, MessagePack: 0, now, gateways that live, results (flat); or 1, now, 0: begin again, nothing was done.
-- Times are whole microseconds, amounts whole numbers below 2^53, which a double holds exactly.
local floor, ceil, min, max, sub = math.floor, math.ceil, math.min, math.max, string.sub
local read, write, call = struct.unpack, struct.pack, redis.call
local ENTRY, FULL, MOST, DAY = 16, 127 * 16, 9007199254740991, 86400000

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ledger, token, holder, number, lease, chunk, specs, spec_of, ops = unpack(cmsgpack.unpack(ARGV[1]))
local me = string.format('%.0f', holder)
local function lives_until(said) return tonumber(string.match(said or '', '^%d+') or 0) end

if call('HGET', KEYS[1], ledger) ~= token or lives_until(call('HGET', KEYS[2], me) or '') <= now then
  return cmsgpack.pack({1, now, 0})
end
call('HSET', KEYS[2], me, string.format('%.0f %.0f', now + lease, number))  -- so it is known later what was done
if chunk > 0 and call('HSETNX', KEYS[1], ledger .. ':' .. chunk, 1) == 0 then  -- who restored before us came so far
  return cmsgpack.pack({0, now, call('HLEN', KEYS[2])})
end

local living
local function is_alive(who)
  if who == holder then return true end
  if not living then
    living = {}
    local all = call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do living[tonumber(all[i])] = lives_until(all[i + 1]) > now end
  end
  return living[who]
end

-- spec: algorithm, most, soft, shares, and numbers of the algorithm. Each reads and writes its state, says whether an
-- amount fits, adds it, how long to wait, corrects, what is used; `ttl` in milliseconds, nil for what is empty.

local sliding = {}  -- 5 window, 6 slot
function sliding.read(raw)
  if not raw then return {told = 0, level = 0, at = 0, last = 0, log = ''} end
  local told, level, at, last, rest = read('<Bddd', raw)
  return {told = told, level = level, at = at, last = last, log = sub(raw, rest)}
end
function sliding.write(s, spec)
  if s.level <= 0 then return nil end
  return write('<Bddd', s.told, s.level, s.at, s.last) .. s.log, ceil((max(s.at - now, 0) + spec[5]) / 1000) + 1000
end
local function forget(s, before)
  if s.at <= before then
    s.level, s.last, s.log = 0, 0, ''
    return
  end
  local place, log = 1, s.log
  while place < #log do
    local at, amount = read('<dd', log, place)
    if at > before then break end
    s.level = s.level - amount
    place = place + ENTRY
  end
  if place > 1 then s.log = sub(log, place) end
end
function sliding.fits(s, spec, amount)
  local t = max(now, s.at)
  if s.level + amount > spec[2] or s.at <= t - spec[5] then forget(s, t - spec[5]) end
  return s.level + amount <= spec[2]
end
function sliding.add(s, spec, amount)
  local t = max(now, s.at)  -- a clock that was set back
  if s.at <= t - spec[5] or s.level <= 0 then
    s.level, s.at, s.last, s.log = amount, t, amount, ''
    return
  end
  s.level = s.level + amount
  local same = s.at == t
  if not same and #s.log >= FULL then
    forget(s, t - spec[5])
    same = #s.log >= FULL and floor(s.at / spec[6]) == floor(t / spec[6])
  end
  if same then
    s.last = s.last + amount
  else
    s.log = s.log .. write('<dd', s.at, s.last)
    s.last = amount
  end
  s.at = t
end
function sliding.wait(s, spec, amount)
  forget(s, now - spec[5])
  local lacking, freed, place, log = s.level + amount - spec[2], now - spec[5], 1, s.log
  while lacking > 0 do
    local less
    if place < #log then
      freed, less = read('<dd', log, place)
    else
      freed, less = s.at, s.last
      if less < lacking then less = lacking end
    end
    place = place + ENTRY
    lacking = lacking - less
  end
  return max(0, freed + spec[5] - now)
end
function sliding.correct(s, spec, change, at)
  if at <= now - spec[5] then return end
  if s.at == 0 then
    if change > 0 then s.level, s.at, s.last = change, at, change end
    return
  end
  local log, place = s.log, #s.log
  while place > 0 and (read('<d', log, place - 15)) >= at do place = place - ENTRY end
  local newest = place == #log
  local when, amount
  if newest then when, amount = s.at, s.last else when, amount = read('<dd', log, place + 1) end
  if when < at or (when > at and change > 0 and #log < FULL) then  -- its own entry is not there any more
    if change > 0 then
      s.level = s.level + change
      if s.at < at then
        s.log = log .. write('<dd', s.at, s.last)
        s.at, s.last = at, change
      else
        s.log = sub(log, 1, place) .. write('<dd', at, change) .. sub(log, place + 1)
      end
    end
    return
  end
  local after = max(0, amount + change)
  s.level = s.level + after - amount
  if newest then
    s.last = after
    if after == 0 and #log > 0 then
      s.at, s.last = read('<dd', log, #log - 15)
      s.log = sub(log, 1, -17)
    end
  else
    s.log = sub(log, 1, place) .. (after > 0 and write('<dd', when, after) or '') .. sub(log, place + 17)
  end
end
function sliding.used(s, spec)
  forget(s, now - spec[5])
  if s.level <= 0 then return 0, 0 end
  local oldest = s.at
  if #s.log > 0 then oldest = read('<d', s.log) end
  return s.level, max(0, oldest + spec[5] - now)
end

local bucket = {}  -- 5 parts of a unit, 6 / 7 parts that come back in a microsecond; kept is what is lacking, in parts
function bucket.read(raw)
  if not raw then return {told = 0, lacks = 0, at = now} end
  local told, lacks, at = read('<Bdd', raw)
  return {told = told, lacks = lacks, at = at}
end
local function parts(spec, time)  -- that come back in a time: never more than do
  if spec[7] == 1 then return time * spec[6] end
  return floor(time * spec[6] / spec[7] * (1 - 1e-15))
end
function bucket.write(s, spec)
  if s.lacks <= 0 then return nil end
  return write('<Bdd', s.told, s.lacks, s.at), min(366 * DAY, ceil(s.lacks * spec[7] / spec[6] / 1000) + 1000)
end
local function refill(s, spec)
  if now > s.at then
    s.lacks = max(0, s.lacks - parts(spec, now - s.at))
    s.at = now
  end
end
function bucket.fits(s, spec, amount)
  refill(s, spec)
  return s.lacks + amount * spec[5] <= spec[2] * spec[5]
end
function bucket.add(s, spec, amount)
  refill(s, spec)
  s.lacks = min(MOST, s.lacks + amount * spec[5])
end
function bucket.wait(s, spec, amount)
  refill(s, spec)
  return max(0, ceil((s.lacks + (amount - spec[2]) * spec[5]) * spec[7] / spec[6]))
end
function bucket.correct(s, spec, change, at, lacked)
  refill(s, spec)
  if change > 0 then return bucket.add(s, spec, change) end
  -- What has come back meanwhile cannot be given back, too: it may have run over.
  s.lacks = max(0, s.lacks - min(-change * spec[5], max(0, lacked - parts(spec, max(0, now - at)))))
end
function bucket.used(s, spec)
  refill(s, spec)
  return ceil(s.lacks / spec[5]), s.lacks
end

local periodic = {}  -- 5 to 8: beginnings of the period before, of this one, the next, and the one behind that
function periodic.read(raw)
  if not raw then return {told = 0, start = 0, used = 0} end
  local told, start, used = read('<Bdd', raw)
  return {told = told, start = start, used = used}
end
local function turn(s, spec)
  local start, ends = spec[6], spec[7]
  if now < start then start, ends = spec[5], spec[6] elseif now >= ends then start, ends = spec[7], spec[8] end
  if s.start < start then s.start, s.used, s.told = start, 0, 0 end
  return ends
end
function periodic.write(s, spec)
  if s.used <= 0 then return nil end
  return write('<Bdd', s.told, s.start, s.used), max(1, ceil((turn(s, spec) - now) / 1000)) + 1000
end
function periodic.fits(s, spec, amount)
  turn(s, spec)
  return s.used + amount <= spec[2]
end
function periodic.add(s, spec, amount)
  turn(s, spec)
  s.used = min(MOST, s.used + amount)
end
function periodic.wait(s, spec) return max(0, turn(s, spec) - now) end
function periodic.correct(s, spec, change, at)
  turn(s, spec)
  if at >= s.start then s.used = min(MOST, max(0, s.used + change)) end
end
function periodic.used(s, spec)
  local ends = turn(s, spec)
  return s.used, s.used > 0 and max(0, ends - now) or 0
end

local concurrent = {}  -- how many each gateway holds; those of one that has died count no more
function concurrent.read(raw)
  local s = {told = 0, held = 0, mine = 0, others = ''}
  for place = 1, raw and #raw or 0, ENTRY do
    local who, count = read('<dd', raw, place)
    if who == holder then
      s.mine, s.held = count, s.held + count
    elseif is_alive(who) then
      s.held, s.others = s.held + count, s.others .. sub(raw, place, place + 15)
    end
  end
  return s
end
function concurrent.write(s)
  if s.held <= 0 then return nil end
  return (s.mine > 0 and write('<dd', holder, s.mine) or '') .. s.others, DAY
end
function concurrent.fits(s, spec, amount) return s.held + amount <= spec[2] end
function concurrent.add(s, _, amount) s.mine, s.held = s.mine + amount, s.held + amount end
function concurrent.wait() return 1000000 end
function concurrent.correct(s, _, change)
  change = max(-s.mine, change)
  s.mine, s.held = s.mine + change, s.held + change
end
function concurrent.used(s) return s.held, 0 end

local ALGORITHMS = {sliding, bucket, periodic, concurrent}

local raw, states, changed, results, last = {}, {}, {}, {0, now, call('HLEN', KEYS[2])}, 3
if #spec_of > 0 then raw = call('MGET', unpack(KEYS, 3)) end
local function state(k)
  local s, spec = states[k], specs[spec_of[k]]
  local algorithm = ALGORITHMS[spec[1]]
  if not s then
    s = algorithm.read(raw[k])
    states[k] = s
  end
  return s, spec, algorithm
end
local function say(value)
  last = last + 1
  results[last] = value
end

local function reserve(at, count)
  local longest, by = 0, -1
  for i = 0, count - 1 do
    local s, spec, algorithm = state(ops[at + 2 * i])
    local amount = ops[at + 2 * i + 1]
    if longest >= 0 and spec[3] == 0 and amount > 0 and not algorithm.fits(s, spec, amount) then
      local wait = amount > spec[2] and -1 or algorithm.wait(s, spec, amount)
      if wait < 0 or wait > longest or by < 0 then longest, by = wait, i end
    end
  end
  say(by < 0 and 1 or 0)
  for i = 0, count - 1 do
    local k, amount = ops[at + 2 * i], ops[at + 2 * i + 1]
    local s, spec, algorithm = state(k)
    if by < 0 and amount > 0 then
      algorithm.add(s, spec, amount)
      changed[k] = true
    end
    local used, resets = algorithm.used(s, spec)
    say(used) say(resets)
  end
  if by >= 0 then say(by) say(longest) end
end

local function correct(at, count)
  say(0)
  local place = last
  for i = 0, count - 1 do
    local k, change = ops[at + 4 * i], ops[at + 4 * i + 1]
    local s, spec, algorithm = state(k)
    if change ~= 0 then
      algorithm.correct(s, spec, change, ops[at + 4 * i + 2], ops[at + 4 * i + 3])
      changed[k] = true
    end
    if #spec[4] > 0 then  -- each share is told of once, by whoever was the first to see it reached
      local used, share = algorithm.used(s, spec), 0
      for _, one in ipairs(spec[4]) do
        if used * 100 >= one * spec[2] then share = one end
      end
      if share ~= s.told then
        if share > s.told then
          results[place] = results[place] + 1
          say(i) say(share) say(used)
        end
        s.told = share
        changed[k] = true
      end
    end
  end
end

local at = 1
while at < #ops do
  local kind, count = ops[at], ops[at + 1]
  at = at + 2
  if kind == 1 then
    reserve(at, count)
    at = at + 2 * count
  elseif kind == 2 then
    correct(at, count)
    at = at + 4 * count
  else
    for i = 0, count - 1 do
      local s, spec, algorithm = state(ops[at + i])
      local used, resets = algorithm.used(s, spec)
      say(used) say(resets)
    end
    at = at + count
  end
end

for k in pairs(changed) do
  local s, spec, algorithm = state(k)
  local data, ttl = algorithm.write(s, spec)
  if data then
    call('SET', KEYS[k + 2], data, 'PX', ttl)
  elseif raw[k] then
    call('DEL', KEYS[k + 2])
  end
end
return cmsgpack.pack(results)
