#!lua flags=allow-oom
-- Gives the lock back, unless another has it by now.
-- KEYS: lock. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
