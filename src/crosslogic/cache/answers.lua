-- The response cache of one org. ARGV[1] says what to do.
-- KEYS: 1 the answer (hash: v value, n hits, t when it was kept), 2 its org's index (sorted set: digest by the millisecond of its end),
--       3 sizes (hash: digest -> bytes, and `total`). All three lie in one slot of a cluster.
-- Invariant: an answer that exists stands in the index, so `clear` finds it, and `total` is the sum of all sizes.

local what, index, sizes = ARGV[1], KEYS[2], KEYS[3]

local function forget(digest)
  local size = redis.call('HGET', sizes, digest)
  if size then
    redis.call('HDEL', sizes, digest)
    redis.call('HINCRBY', sizes, 'total', -tonumber(size))
  end
  redis.call('ZREM', index, digest)
end

if what == 'get' then
  local value = redis.call('HGET', KEYS[1], 'v')
  if not value then return false end
  return {value, redis.call('HINCRBY', KEYS[1], 'n', 1), redis.call('HGET', KEYS[1], 't')}
end

if what == 'set' then
  -- ARGV: 2 digest, 3 value, 4 seconds since 1970 (text), 5 time to live in ms, 6 size, 7 most bytes, 8 key prefix
  local digest, ttl_ms, size, most = ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
  local time = redis.call('TIME')
  local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  for _, past in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now_ms, 'LIMIT', 0, 100)) do forget(past) end
  forget(digest)
  local total = tonumber(redis.call('HGET', sizes, 'total') or '0')
  while total + size > most do
    local first = redis.call('ZRANGE', index, 0, 0)[1]
    if not first then break end
    redis.call('UNLINK', ARGV[8] .. first)
    forget(first)
    total = tonumber(redis.call('HGET', sizes, 'total') or '0')
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'v', ARGV[3], 'n', 0, 't', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
  redis.call('ZADD', index, now_ms + ttl_ms, digest)
  redis.call('HSET', sizes, digest, size)
  redis.call('HINCRBY', sizes, 'total', size)
  for place = 2, 3 do
    if redis.call('PTTL', KEYS[place]) < ttl_ms then redis.call('PEXPIRE', KEYS[place], ttl_ms + 1000) end
  end
  return 1
end

if what == 'delete' then
  forget(ARGV[2])
  return redis.call('UNLINK', KEYS[1])
end

if what == 'clear' then
  -- ARGV: 2 most at once, 3 key prefix. Returns how many stood in the index, and how many of them still lived.
  local digests, lived = redis.call('ZRANGE', index, 0, tonumber(ARGV[2]) - 1), 0
  for _, digest in ipairs(digests) do
    lived = lived + redis.call('UNLINK', ARGV[3] .. digest)
    forget(digest)
  end
  if redis.call('EXISTS', index) == 0 then redis.call('DEL', sizes) end
  return {#digests, lived}
end

return redis.error_reply('ERR unknown action')
