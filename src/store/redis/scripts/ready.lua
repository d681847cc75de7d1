-- The conversations that have something open, and those that are still warm.
--
-- KEYS  1 lease  2 ready  3 warm
-- Answers OK ready warm
local wants_warm = ARGV[4] == '1'

-- Here, because each partition's owner asks this once a second.
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
return {'OK', now, call('SMEMBERS', KEYS[2]), wants_warm and call('ZRANGE', KEYS[3], 0, -1) or {}}
