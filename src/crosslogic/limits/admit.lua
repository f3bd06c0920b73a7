-- One batch of one gateway worker: what was given back since the last batch, then the requests that ask to pass.
-- Everything in it happens at one instant of Redis' own clock, in all layers or in none.
--
-- KEYS[1]   who is alive: {epoch, {session = time of its last batch}}
-- KEYS[2]   this session's last answer: {sequence number, answer}
-- KEYS[3..] one scope each: {full, leases}; full[place] is when that bucket is full again, leases[session] how many
--           requests of that session run there
-- ARGV[1]   MessagePack, written by batch.py, which also reads the answer
--
-- Times are microseconds since 2025 as doubles, which keeps a hundredth of a microsecond.

local batch = cmsgpack.unpack(ARGV[1])
local session, old, sequence = batch[1], batch[2], batch[3]
local known_epoch, careful, workers, rank = batch[4], batch[5] == 1, batch[6], batch[7]
local dead_after, farewell, rows, asks = batch[8], batch[9], batch[10], batch[11]

local stored = redis.call('MGET', unpack(KEYS))
if stored[2] then
  local last = cmsgpack.unpack(stored[2])
  if last[1] == sequence then
    return last[2] -- sent again because the answer was lost: nothing may happen twice
  end
end

local clock = redis.call('TIME')
local now = (clock[1] - 1735689600) * 1e6 + clock[2]

-- Who is alive. An epoch is one life of this memory; a worker that knew another one must be careful, because the
-- leases of the others may not be here again yet.
local alive = stored[1] and cmsgpack.unpack(stored[1]) or {now, {}}
local epoch, seen = alive[1], alive[2]
careful = careful or (known_epoch ~= 0 and known_epoch ~= epoch)
local changed = false
for name, at in pairs(seen) do
  if now - at > dead_after then
    seen[name] = nil
    changed = true
  end
end
if not seen[session] or now - seen[session] > 250000 then
  seen[session] = now
  changed = true
end

local full, leases, mine, others, dirty = {}, {}, {}, {}, {}
for i = 1, #rows do
  local row = rows[i]
  local rates = row[1]
  local state = stored[i + 2] and cmsgpack.unpack(stored[i + 2]) or {{}, {}}
  full[i], leases[i], mine[i], others[i] = state[1], state[2], row[2], 0
  for name, count in pairs(leases[i]) do
    if name == old or not seen[name] then
      leases[i][name] = nil
      dirty[i] = true
    elseif name ~= session then
      others[i] = others[i] + count
    end
  end
  if rates[1] >= 0 and (leases[i][session] or 0) ~= mine[i] then
    dirty[i] = true
  end
  if row[3] ~= 0 or row[4] ~= 0 then
    dirty[i] = true
    for j = 2, #rates, 5 do
      local back = row[3 + rates[j + 1]]
      full[i][rates[j]] = math.max(full[i][rates[j]] or 0, now) - back * rates[j + 2]
    end
  end
  if row[5] then -- what this worker let pass by itself while it was alone
    dirty[i] = true
    for place, ahead in pairs(row[5]) do
      full[i][place] = math.max(full[i][place] or 0, now) + ahead
    end
  end
end

local answer = {}
for a = 1, #asks do
  local ask = asks[a]
  local tokens = ask[1]
  -- The verdict is the longest wait among all that refuse, and "never" is longer than any.
  local never, wait, whose, which = 0, 0, 0, 0
  for k = 2, #ask do
    local i = ask[k]
    local rates = rows[i][1]
    for j = 2, #rates, 5 do
      local cost = rates[j + 1] == 0 and rates[j + 2] or tokens * rates[j + 2]
      local ahead = math.max((full[i][rates[j]] or 0) - now, 0)
      local over = ahead + cost - rates[j + 3]
      if over > 1 then
        local too_large = cost > rates[j + 3] + 1 and 1 or 0
        if too_large == 1 then over = 60e6 end
        if too_large > never or (too_large == never and over > wait) then
          never, wait, whose, which = too_large, over, k - 1, rates[j]
        end
      end
    end
    local slots = rates[1]
    if slots >= 0 then
      local share = math.floor(slots * (rank + 1) / workers) - math.floor(slots * rank / workers)
      if mine[i] + others[i] >= slots or (careful and mine[i] >= share) then
        local zero = slots == 0 and 1 or 0
        local pause = zero == 1 and 60e6 or 1e6
        if zero > never or (zero == never and pause > wait) then
          never, wait, whose, which = zero, pause, k - 1, 0
        end
      end
    end
  end

  local limit, remaining, reset = {-1, -1}, {math.huge, math.huge}, {0, 0}
  for k = 2, #ask do
    local i = ask[k]
    local rates = rows[i][1]
    for j = 2, #rates, 5 do
      local ahead = math.max((full[i][rates[j]] or 0) - now, 0)
      if whose == 0 then
        ahead = ahead + (rates[j + 1] == 0 and rates[j + 2] or tokens * rates[j + 2])
        full[i][rates[j]] = now + ahead
      end
      local unit = rates[j + 1] + 1
      local left = (rates[j + 3] - ahead) / rates[j + 2]
      if left < remaining[unit] then
        limit[unit], remaining[unit], reset[unit] = rates[j + 4], left, ahead
      end
    end
    if whose == 0 then
      mine[i] = mine[i] + 1
      dirty[i] = true
    end
  end
  answer[a] = {
    whose, which, never, wait,
    limit[1], limit[1] < 0 and 0 or math.max(0, math.floor(remaining[1] + 1e-6)), reset[1],
    limit[2], limit[2] < 0 and 0 or math.max(0, math.floor(remaining[2] + 1e-6)), reset[2],
  }
end

for i = 1, #rows do
  if dirty[i] then
    local rates = rows[i][1]
    if rates[1] >= 0 then
      leases[i][session] = mine[i] > 0 and mine[i] or nil
    end
    local lasts = 60e6
    for _, at in pairs(full[i]) do
      lasts = math.max(lasts, at - now + 60e6)
    end
    if next(leases[i]) then
      lasts = math.max(lasts, 3600e6) -- workers write their leases again well within this time
    end
    redis.call('SET', KEYS[i + 2], cmsgpack.pack({full[i], leases[i]}), 'PX', string.format('%.0f', lasts / 1000))
  end
end

if farewell ~= '' and seen[farewell] then
  seen[farewell] = nil
  changed = true
end
if changed then
  redis.call('SET', KEYS[1], cmsgpack.pack({epoch, seen}), 'PX', 3600000)
end
local count, place = 0, 0
for name in pairs(seen) do
  if name ~= old then
    count = count + 1
    if name < session then place = place + 1 end
  end
end
local packed = cmsgpack.pack({epoch, count, place, answer})
redis.call('SET', KEYS[2], cmsgpack.pack({sequence, packed}), 'PX', 120000)
return packed
