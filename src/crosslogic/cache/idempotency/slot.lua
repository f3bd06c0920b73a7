-- One step of one idempotency key: `slot.py` in Redis. Redis forgets a slot when its lease or its memory is over.
-- KEYS: 1 the slot (hash: f fingerprint, h holder, a answer once done, empty when it was not kept)
--       2 bytes of answers that this org had kept in the present period
-- ARGV: 1 what, 2 fingerprint, 3 holder, 4 ms until the slot ends, 5 answer, 6 most bytes of an org

local what, fingerprint, holder, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local slot = redis.call('HMGET', KEYS[1], 'f', 'h', 'a')
local answer = slot[3]

if what == 'begin' then
  if not slot[1] then
    redis.call('HSET', KEYS[1], 'f', fingerprint, 'h', holder)
    redis.call('PEXPIRE', KEYS[1], ttl_ms)
    return {'run'}
  end
  if slot[1] ~= fingerprint then return {'conflict'} end
  if answer == '' then return {'spent'} end
  if answer then return {'replay', answer} end
  if slot[2] == holder then return {'run'} end
  return {'join'}
end

if what == 'complete' then
  if slot[1] and (answer or slot[2] ~= holder) then return {'kept'} end
  local kept, size = ARGV[5], #ARGV[5]
  if size > 0 and redis.call('INCRBY', KEYS[2], size) > tonumber(ARGV[6]) then
    redis.call('DECRBY', KEYS[2], size)
    kept = ''
  end
  if redis.call('PTTL', KEYS[2]) < 0 then redis.call('PEXPIRE', KEYS[2], ttl_ms) end
  redis.call('HSET', KEYS[1], 'f', fingerprint, 'h', holder, 'a', kept)
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
  return {'done'}
end

if answer or slot[2] ~= holder then return {'kept'} end
if what == 'renew' then redis.call('PEXPIRE', KEYS[1], ttl_ms) end
if what == 'release' then redis.call('DEL', KEYS[1]) end
return {'done'}
