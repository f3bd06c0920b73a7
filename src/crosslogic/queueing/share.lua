-- One report of one gateway worker: what waits with it, and how it changed the counters of tenants since the last.
-- The answer is what all workers together know.
--
-- KEYS[1]   who is alive: {epoch, {session = {time, requests waiting there}}}
-- KEYS[2]   what waits there: {session = {tenant = count}}; looked at only now and then, for it may be long
-- KEYS[3..] one lane of a line each, a hash: tenant -> counter; the field '' is the counter served last ("virtual")
-- ARGV[1]   MessagePack, written by share.py, which also reads the answer
-- ARGV[2]   milliseconds after which a key that nobody reports on is forgotten

local report = cmsgpack.unpack(ARGV[1])
local session, dead_after_us, total, tenants, lanes = report[1], report[2], report[3], report[4], report[5]

local clock = redis.call('TIME')
local now = (clock[1] - 1735689600) * 1e6 + clock[2]

local stored = redis.call('GET', KEYS[1])
local alive = stored and cmsgpack.unpack(stored) or {now, {}}
local epoch, sessions = alive[1], alive[2]
sessions[session] = total >= 0 and {now, total} or nil
local workers, elsewhere = 0, 0
for name, other in pairs(sessions) do
  if now - other[1] > dead_after_us then
    sessions[name] = nil
  else
    workers = workers + 1
    if name ~= session then
      elsewhere = elsewhere + other[2]
    end
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack({epoch, sessions}), 'PX', ARGV[2])

local flat = false
if tenants then
  local mine = {}
  for i = 1, #tenants, 2 do
    mine[tenants[i]] = tenants[i + 1]
  end
  local known = redis.call('GET', KEYS[2])
  local waiting = known and cmsgpack.unpack(known) or {}
  waiting[session] = mine
  local sums = {}
  for name, counts in pairs(waiting) do
    if not sessions[name] then
      waiting[name] = nil
    elseif name ~= session then
      for tenant, count in pairs(counts) do
        sums[tenant] = (sums[tenant] or 0) + count
      end
    end
  end
  redis.call('SET', KEYS[2], cmsgpack.pack(waiting), 'PX', ARGV[2])
  flat = {}
  for tenant, count in pairs(sums) do
    flat[#flat + 1] = tenant
    flat[#flat + 1] = count
  end
end

local answers = {}
for l = 1, #lanes do
  local lane, key = lanes[l], KEYS[l + 2]
  local names = {''}
  for j = 2, #lane, 3 do
    names[#names + 1] = lane[j]
  end
  local known = redis.call('HMGET', key, unpack(names))
  local virtual = math.max(tonumber(known[1] or 0), lane[1])
  local answer, writes = {virtual}, {'', string.format('%.17g', virtual)}
  for k = 2, #names do
    local floor, amount = lane[3 * k - 3], lane[3 * k - 2]
    -- who is not known stands where the present is
    local value = known[k] and tonumber(known[k]) or virtual
    if floor > value or amount ~= 0 then
      if floor > value then value = floor end
      value = value + amount
      writes[#writes + 1] = names[k]
      writes[#writes + 1] = string.format('%.17g', value)
    end
    answer[k] = value
  end
  redis.call('HSET', key, unpack(writes))
  redis.call('PEXPIRE', key, ARGV[2])
  answers[l] = answer
end

return cmsgpack.pack({epoch, workers, elsewhere, flat, answers})
