#!lua
-- Takes the lock, or keeps it for longer: 1 if it is ours now, 0 if it is another's.
-- KEYS: lock. ARGV: token, milliseconds.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
