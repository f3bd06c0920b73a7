-- One batch of one gateway worker: what was given back since the last batch, then the requests that ask to pass.
-- Everything in it happens at one instant of Redis' own clock, in all layers or in none.
--
-- KEYS[1]   who is alive: {epoch, {session = time of its last batch}}
-- KEYS[2]   this session's last answer: {sequence number, answer}
-- KEYS[3..] one scope each: {full, leases, money}; full[place] is when that bucket is full again, leases[session] how
--           many requests of that session run there; money is {month, spent in it, held[session]}, where there is a
--           budget
-- ARGV[1]   MessagePack, written by batch.py and remote.py, which also read the answer
--
-- Times are microseconds since 2025 as doubles, which keeps a hundredth of a microsecond. Money is whole nano-dollars,
-- which doubles keep up to nine million dollars.

local batch = cmsgpack.unpack(ARGV[1])
local session, sequence = batch[1], batch[3]
local is_old = {} -- earlier names of this worker: their leases give way to those of this session
for _, name in ipairs(batch[2]) do is_old[name] = true end
local known_epoch, careful, workers, rank = batch[4], batch[5] == 1, batch[6], batch[7]
local dead_after, farewell, rows, asks, budgets = batch[8], batch[9], batch[10], batch[11], batch[12] == 1

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

-- The calendar month (UTC) as a number, and how much of it is left (days to a date as by H. Hinnant).
local month, month_left = 0, 0
if budgets then
  local div = function(a, b) return math.floor(a / b) end
  local days = div(clock[1], 86400)
  local z = days + 719468
  local era = div(z, 146097)
  local doe = z - era * 146097
  local yoe = div(doe - div(doe, 1460) + div(doe, 36524) - div(doe, 146096), 365)
  local doy = doe - (365 * yoe + div(yoe, 4) - div(yoe, 100))
  local mp = div(5 * doy + 2, 153)
  local day = doy - div(153 * mp + 2, 5) + 1
  local civil = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (civil <= 2 and 1 or 0)
  local length = ({31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[civil]
  if civil == 2 and (year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)) then length = 29 end
  month = year * 12 + civil - 1
  month_left = (days + length - day + 1) * 86400e6 - clock[1] * 1e6 - clock[2]
end

local none = {}
local full, leases, mine, others, dirty = {}, {}, {}, {}, {}
local spent, holds, held_mine, held_others, kept = {}, {}, {}, {}, {}
for i = 1, #rows do
  local row = rows[i]
  local rates, back, alone, money = row[1], row[3], row[4], row[5]
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
  if back and back ~= 0 then
    dirty[i] = true
    for j = 4, #rates, 5 do
      if rates[j + 4] > 0 then -- a ceiling of 0 has no bucket that could be charged
        full[i][rates[j]] = math.max(full[i][rates[j]] or 0, now) - back[rates[j + 1]] * rates[j + 2]
      end
    end
  end
  if alone and alone ~= 0 then -- what this worker let pass by itself while it was alone
    dirty[i] = true
    for place, ahead in pairs(alone) do
      full[i][place] = math.max(full[i][place] or 0, now) + ahead
    end
  end
  if money then
    local known = state[3]
    if not known or known[1] ~= month then known = {month, 0, {}} end
    spent[i], holds[i], held_mine[i], held_others[i] = known[2], known[3], 0, 0
    for name, amount in pairs(holds[i]) do
      if is_old[name] or not seen[name] then
        holds[i][name] = nil
      elseif name ~= session then
        held_others[i] = held_others[i] + amount
      end
    end
    if money[4] == month and money[5] > spent[i] then spent[i] = money[5] end
    if money[1] == month then
      held_mine[i] = money[2]
      spent[i] = spent[i] + money[3]
    end
    dirty[i] = true
  else
    kept[i] = state[3]
  end
end

-- Plain comparisons instead of math.max, and numbers instead of tables, in what runs for every request: Redis runs
-- one script at a time, and calls are the dear part of Lua. An ask is how much it takes of each of the five units, the
-- place in it of a guarantee (0: none), and the rows of its scopes. One that does not even take a request only looks.
local floor, huge = math.floor, math.huge
local never, wait, whose, which -- the verdict: the longest wait among all that refuse, "never" being longer than any
local shadowed, in_shadow, refused
local function refuse(scope, what, too_large, pause)
  refused = true
  if in_shadow then
    if shadowed == none then shadowed = {} end
    shadowed[#shadowed + 1] = scope
    shadowed[#shadowed + 1] = what
  elseif too_large > never or (too_large == never and pause > wait) then
    never, wait, whose, which = too_large, pause, scope, what
  end
end

local answer = {}
for a = 1, #asks do
  local ask = asks[a]
  local last, guarantee = #ask, ask[6]
  local covered, skipped, looks = false, none, ask[1] == 0
  never, wait, whose, which, shadowed = 0, 0, 0, 0, none
  if guarantee > 0 then
    local i = ask[guarantee]
    local rates = rows[i][1]
    covered = #rates > 3 and (full[i][rates[4]] or 0) - now < rates[7]
  end
  for k = 7, last do
    local i = ask[k]
    local rates, times = rows[i][1], full[i]
    local flags = rates[2] -- 1: shared, 2: guarantee, 4: shadow
    in_shadow, refused = flags >= 4, false
    if flags % 4 >= 2 then
      refused = not covered or k ~= guarantee
    elseif not looks and (not covered or flags % 2 == 0) then
      for j = 4, #rates, 5 do
        local cost, capacity = rates[j + 2] * ask[rates[j + 1]], rates[j + 3]
        local over = cost - capacity
        local at = times[rates[j]]
        if at and at > now then over = over + at - now end
        if over > 1 then
          local too_large = cost > capacity + 1
          refuse(k - 6, rates[j], too_large and 1 or 0, too_large and 60e6 or over)
        end
      end
      local slots = rates[1]
      if slots >= 0 and (mine[i] + others[i] >= slots or (careful and mine[i] >= share_of(slots))) then
        refuse(k - 6, 0, slots == 0 and 1 or 0, slots == 0 and 60e6 or 1e6)
      end
      local budget = rates[3]
      if budget >= 0 then
        local cost, left = ask[5], budget - spent[i] - held_mine[i] - held_others[i]
        if cost > left then
          local too_large = cost > budget
          refuse(k - 6, -1, too_large and 1 or 0, too_large and 60e6 or month_left)
        elseif careful and held_mine[i] + cost > floor((budget - spent[i]) / workers) then
          refuse(k - 6, -1, 0, 1e6) -- what others hold may not be here again yet
        end
      end
    end
    if refused and (in_shadow or flags % 4 >= 2) then -- not charged: a shadow's refusal, a guarantee that is empty
      if skipped == none then skipped = {} end
      skipped[#skipped + 1] = k - 6
    end
  end

  -- Take it, and find the tightest room of requests and of tokens for the headers: only of ceilings that bind.
  local r_limit, r_left, r_reset, t_limit, t_left, t_reset = -1, huge, 0, -1, huge, 0
  local next_skipped = 1
  for k = 7, last do
    local i = ask[k]
    local rates, times = rows[i][1], full[i]
    local flags = rates[2]
    local takes = whose == 0 and not looks
    if skipped[next_skipped] == k - 6 then
      next_skipped = next_skipped + 1
      takes = false
    end
    local binds = flags == 0 or (flags == 1 and not covered)
    for j = 4, #rates, 5 do
      local unit, place, what = rates[j + 2], rates[j], rates[j + 1]
      local ahead = (times[place] or 0) - now
      if ahead < 0 then ahead = 0 end
      if takes and rates[j + 4] > 0 then
        ahead = ahead + ask[what] * unit
        times[place] = now + ahead
      end
      if binds and what < 5 then
        local left = (rates[j + 3] - ahead) / unit
        if what > 1 then
          if left < t_left then t_limit, t_left, t_reset = rates[j + 4], left, ahead end
        elseif left < r_left then
          r_limit, r_left, r_reset = rates[j + 4], left, ahead
        end
      end
    end
    if takes then
      mine[i] = mine[i] + 1
      if spent[i] then held_mine[i] = held_mine[i] + ask[5] end
      dirty[i] = true
    end
  end
  r_left = r_limit < 0 and 0 or r_left <= 0 and 0 or floor(r_left + 1e-6)
  t_left = t_limit < 0 and 0 or t_left <= 0 and 0 or floor(t_left + 1e-6)
  local verdict = {whose, which, never, wait, r_limit, r_left, r_reset, t_limit, t_left, t_reset}
  if covered or skipped ~= none then
    verdict[11], verdict[12], verdict[13] = covered and 1 or 0, skipped, shadowed
  end
  answer[a] = verdict
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
    local money = kept[i]
    if spent[i] then
      holds[i][session] = held_mine[i] ~= 0 and held_mine[i] or nil
      money = {month, spent[i], holds[i]}
      if month_left + 60e6 > lasts then lasts = month_left + 60e6 end
    end
    redis.call('SET', KEYS[i + 2], cmsgpack.pack({full[i], held, money}), 'PX', floor(lasts / 1000))
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
local spends = {}
for i = 1, #rows do
  if spent[i] then spends[#spends + 1] = {i, spent[i], held_others[i], held_mine[i]} end
end
local packed = cmsgpack.pack(budgets and {epoch, count, place, answer, month, spends} or {epoch, count, place, answer})
redis.call('SET', KEYS[2], cmsgpack.pack({sequence, packed}), 'PX', 120000)
return packed
