-- The conversations that have something open, and those that are still warm.
--
-- KEYS  1 lease  2 ready  3 warm
-- Answers OK ready warm
local wants_warm = ARGV[3] == '1'

-- Each partition's owner asks this once a second, so that nothing is left over for long; and mostly there is
-- nothing, so that the answer should cost next to nothing.
if wants_warm or now % 64 == 0 then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
end
return {'OK', now, call('SMEMBERS', KEYS[2]), wants_warm and call('ZRANGE', KEYS[3], 0, -1) or {}}
