#!lua
-- Takes or renews the lock. Returns 1 if it is ours, 0 if another process holds it.
-- KEYS: lock. ARGV: token, milliseconds.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
