-- The response cache of one org. ARGV[1] says what to do, ARGV[2] is the prefix of the org's answers.
-- KEYS: 1 the answer (hash: v value, n hits, t when it was kept, c its clearings, and for people: r request, e environment,
--         m model, p endpoint, f streamed, z bytes)
--       2 index (sorted set: digest by the millisecond of its end), 3 sizes (hash: digest -> "bytes request", and `total`)
--       4 requests (hash: request -> digest), 5 clearings (hash: what -> when it was last cleared, see `clearings_of`)
-- All lie in one slot of a cluster.
-- Invariants: an answer that exists stands in the index, and `total` is the sum of all sizes. An answer is given only while
-- nothing that it is in was cleared since it was kept: so clearing takes one step, whatever it clears, and `sweep` gives
-- the space back afterwards. Clearings are remembered as long as any answer from before them can live.

local what, prefix = ARGV[1], ARGV[2]
local index, sizes, requests, clearings = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local MOST_CLEARINGS, AT_ONCE = 1000, 500

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), time[1] .. '.' .. time[2]
end

-- The org, the environment, the model, the model in the environment; ids of environments have no bar.
local function clearings_of(env, model)
  local found = redis.call('HMGET', clearings, '|', env .. '|', '|' .. model, env .. '|' .. model)
  for place = 1, 4 do found[place] = found[place] or '0' end
  return table.concat(found, ',')
end

local function forget(digest)
  local size, request = string.match(redis.call('HGET', sizes, digest) or '', '^(%d+) ?(.*)$')
  if size then
    redis.call('HDEL', sizes, digest)
    redis.call('HINCRBY', sizes, 'total', -tonumber(size))
    if redis.call('HGET', requests, request) == digest then redis.call('HDEL', requests, request) end
  end
  redis.call('ZREM', index, digest)
end

local function lives(kept)
  return kept[1] and kept[2] and kept[3] and kept[1] == clearings_of(kept[2], kept[3])
end

-- Digests and ends of those that follow (end, digest) in the index.
local function following(end_ms, digest, most)
  local rank = digest ~= '' and redis.call('ZRANK', index, digest)
  local first = rank and rank + 1 or redis.call('ZCOUNT', index, '-inf', '(' .. end_ms)
  local found, rows = {}, redis.call('ZRANGE', index, first, first + most - 1, 'WITHSCORES')
  for place = 1, #rows, 2 do
    if rank or rows[place + 1] ~= end_ms or rows[place] > digest then
      found[#found + 1] = {rows[place], rows[place + 1]}
    end
  end
  return found, #rows / 2 < most
end

local function described(digest, end_ms, now_ms, env, model)
  local kept = redis.call('HMGET', prefix .. digest, 'c', 'e', 'm', 'r', 'p', 'f', 'z', 'n', 't')
  if not lives(kept) then return nil end
  if (env ~= '' and kept[2] ~= env) or (model ~= '' and kept[3] ~= model) then return nil end
  return {digest, end_ms - now_ms, kept[2], kept[3], kept[4], kept[5], kept[6], kept[7], kept[8], kept[9]}
end

if what == 'get' then
  local kept = redis.call('HMGET', KEYS[1], 'c', 'e', 'm', 'v', 't')
  if not lives(kept) then return false end
  return {kept[4], redis.call('HINCRBY', KEYS[1], 'n', 1), kept[5]}
end

if what == 'set' then
  -- ARGV: 3 digest, 4 value, 5 seconds since 1970 (text), 6 time to live in ms, 7 size, 8 most bytes, 9 most answers,
  --       10 request, 11 environment, 12 model, 13 endpoint, 14 streamed. Returns how many gave way.
  local digest, ttl_ms, size = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
  local now_ms = now()
  for _, past in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now_ms, 'LIMIT', 0, 100)) do forget(past) end
  forget(digest)
  local evicted = 0
  while tonumber(redis.call('HGET', sizes, 'total') or '0') + size > tonumber(ARGV[8])
    or redis.call('ZCARD', index) >= tonumber(ARGV[9]) do
    local first = redis.call('ZRANGE', index, 0, 0)[1]
    if not first then break end
    redis.call('UNLINK', prefix .. first)
    forget(first)
    evicted = evicted + 1
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'v', ARGV[4], 'n', 0, 't', ARGV[5], 'z', size, 'r', ARGV[10], 'e', ARGV[11], 'm', ARGV[12],
    'p', ARGV[13], 'f', ARGV[14], 'c', clearings_of(ARGV[11], ARGV[12]))
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
  redis.call('ZADD', index, now_ms + ttl_ms, digest)
  redis.call('HSET', sizes, digest, size .. ' ' .. ARGV[10])
  redis.call('HINCRBY', sizes, 'total', size)
  redis.call('HSET', requests, ARGV[10], digest)
  for place = 2, 5 do
    if redis.call('PTTL', KEYS[place]) < ttl_ms then redis.call('PEXPIRE', KEYS[place], ttl_ms + 1000) end
  end
  return evicted
end

if what == 'delete' then
  -- ARGV: 3 digest
  local lived = lives(redis.call('HMGET', KEYS[1], 'c', 'e', 'm')) and 1 or 0
  forget(ARGV[3])
  redis.call('UNLINK', KEYS[1])
  return lived
end

if what == 'entry' then
  -- ARGV: 3 digest
  local end_ms = redis.call('ZSCORE', index, ARGV[3])
  local now_ms = now()
  return end_ms and described(ARGV[3], tonumber(end_ms), now_ms, '', '') or false
end

if what == 'key_of' then
  -- ARGV: 3 request
  local digest = redis.call('HGET', requests, ARGV[3])
  return digest and lives(redis.call('HMGET', prefix .. digest, 'c', 'e', 'm')) and digest or false
end

if what == 'list' then
  -- ARGV: 3 end and 4 digest of the last one seen, 5 most, 6 environment, 7 model. Returns the end and digest of the last
  -- one looked at, whether that was the last of all, and what was found.
  local now_ms, found, most = now(), {}, tonumber(ARGV[5])
  local last_ms, last_digest = ARGV[3], ARGV[4]
  local rows, at_end = following(last_ms, last_digest, AT_ONCE)
  for _, row in ipairs(rows) do
    if #found == most then
      at_end = false
      break
    end
    last_digest, last_ms = row[1], row[2]
    found[#found + 1] = described(row[1], tonumber(row[2]), now_ms, ARGV[6], ARGV[7])
  end
  return {last_ms, last_digest, at_end and 1 or 0, found}
end

if what == 'clear' then
  -- ARGV: 3 environment, 4 model. From here on nothing of it is given.
  local left_ms = redis.call('PTTL', index)
  if left_ms < 0 then return 0 end
  local field = ARGV[3] .. '|' .. ARGV[4]
  if redis.call('HLEN', clearings) >= MOST_CLEARINGS then
    redis.call('DEL', clearings)
    field = '|'
  end
  local _, instant = now()
  redis.call('HSET', clearings, field, instant)
  if redis.call('PTTL', clearings) < left_ms then redis.call('PEXPIRE', clearings, left_ms + 1000) end
  return 1
end

if what == 'sweep' then
  -- ARGV: 3 end and 4 digest of the last one seen. Returns the last one looked at, whether that was the last of all, and
  -- how many of those that were cleared still lived.
  local lived, last_ms, last_digest = 0, ARGV[3], ARGV[4]
  local rows, at_end = following(last_ms, last_digest, AT_ONCE)
  for _, row in ipairs(rows) do
    last_digest, last_ms = row[1], row[2]
    local kept = redis.call('HMGET', prefix .. last_digest, 'c', 'e', 'm')
    if not lives(kept) then
      lived = lived + redis.call('UNLINK', prefix .. last_digest)
      forget(last_digest)
    end
  end
  if redis.call('EXISTS', index) == 0 then redis.call('DEL', sizes, requests, clearings) end
  return {last_ms, last_digest, at_end and 1 or 0, lived}
end

return redis.error_reply('ERR unknown action')
