#!lua
-- Carries out a migration of the schema key and records it in one step. Returns 1 if it is recorded, also by an
-- earlier run, and 0 if the lock is no longer ours.
-- KEYS: schema, lock. ARGV: token, number, checksum.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then
  (function()
--[[migration]]
  end)()
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return 1
