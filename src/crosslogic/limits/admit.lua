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
local session, sequence = batch[1], batch[3]
local is_old = {} -- earlier names of this worker: their leases give way to those of this session
for _, name in ipairs(batch[2]) do is_old[name] = true end
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

local function share_of(slots)
  return math.floor(slots * (rank + 1) / workers) - math.floor(slots * rank / workers)
end

local full, leases, mine, others, dirty = {}, {}, {}, {}, {}
for i = 1, #rows do
  local row = rows[i]
  local rates = row[1]
  local state = stored[i + 2] and cmsgpack.unpack(stored[i + 2]) or {{}, {}}
  full[i], leases[i], mine[i], others[i] = state[1], state[2], row[2], 0
  for name, count in pairs(leases[i]) do
    if is_old[name] or not seen[name] then
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

-- Plain comparisons instead of math.max, and numbers instead of tables, in what runs for every request: Redis runs
-- one script at a time, and calls are the dear part of Lua.
local floor, huge = math.floor, math.huge
local answer = {}
for a = 1, #asks do
  local ask = asks[a]
  local last, tokens = #ask, ask[1]
  -- The verdict is the longest wait among all that refuse, and "never" is longer than any.
  local never, wait, whose, which = 0, 0, 0, 0
  for k = 2, last do
    local i = ask[k]
    local rates, times = rows[i][1], full[i]
    for j = 2, #rates, 5 do
      local cost, capacity = rates[j + 2], rates[j + 3]
      if rates[j + 1] == 1 then cost = cost * tokens end
      local over = cost - capacity
      local at = times[rates[j]]
      if at and at > now then over = over + at - now end
      if over > 1 then
        local too_large = cost > capacity + 1 and 1 or 0
        if too_large == 1 then over = 60e6 end
        if too_large > never or (too_large == never and over > wait) then
          never, wait, whose, which = too_large, over, k - 1, rates[j]
        end
      end
    end
    local slots = rates[1]
    if slots >= 0 and (mine[i] + others[i] >= slots or (careful and mine[i] >= share_of(slots))) then
      local zero = slots == 0 and 1 or 0
      local pause = zero == 1 and 60e6 or 1e6
      if zero > never or (zero == never and pause > wait) then
        never, wait, whose, which = zero, pause, k - 1, 0
      end
    end
  end

  -- Take it, and find the tightest room of each unit for the headers.
  local r_limit, r_left, r_reset, t_limit, t_left, t_reset = -1, huge, 0, -1, huge, 0
  for k = 2, last do
    local i = ask[k]
    local rates, times = rows[i][1], full[i]
    for j = 2, #rates, 5 do
      local unit, place = rates[j + 2], rates[j]
      local of_tokens = rates[j + 1] == 1
      local ahead = (times[place] or 0) - now
      if ahead < 0 then ahead = 0 end
      if whose == 0 then
        ahead = ahead + (of_tokens and tokens * unit or unit)
        times[place] = now + ahead
      end
      local left = (rates[j + 3] - ahead) / unit
      if of_tokens then
        if left < t_left then t_limit, t_left, t_reset = rates[j + 4], left, ahead end
      elseif left < r_left then
        r_limit, r_left, r_reset = rates[j + 4], left, ahead
      end
    end
    if whose == 0 then
      mine[i] = mine[i] + 1
      dirty[i] = true
    end
  end
  r_left = r_limit < 0 and 0 or r_left <= 0 and 0 or floor(r_left + 1e-6)
  t_left = t_limit < 0 and 0 or t_left <= 0 and 0 or floor(t_left + 1e-6)
  answer[a] = {whose, which, never, wait, r_limit, r_left, r_reset, t_limit, t_left, t_reset}
end

for i = 1, #rows do
  if dirty[i] then
    local held = leases[i]
    if rows[i][1][1] >= 0 then
      held[session] = mine[i] > 0 and mine[i] or nil
    end
    local lasts = next(held) and 3600e6 or 60e6 -- workers write their leases again well within an hour
    for _, at in pairs(full[i]) do
      if at - now + 60e6 > lasts then lasts = at - now + 60e6 end
    end
    redis.call('SET', KEYS[i + 2], cmsgpack.pack({full[i], held}), 'PX', floor(lasts / 1000))
  end
end

for _, name in ipairs(farewell) do
  seen[name] = nil
  changed = true
end
if changed then
  redis.call('SET', KEYS[1], cmsgpack.pack({epoch, seen}), 'PX', 3600000)
end
local count, place = 0, 0
for name in pairs(seen) do
  if not is_old[name] then
    count = count + 1
    if name < session then place = place + 1 end
  end
end
local packed = cmsgpack.pack({epoch, count, place, answer})
redis.call('SET', KEYS[2], cmsgpack.pack({sequence, packed}), 'PX', 120000)
return packed
