-- Returns the conversations with open messages, and those that are still warm.
--
-- KEYS  1 lease  2 ready  3 warm
-- Answers OK ready warm
local wants_warm = ARGV[3] == '1'

-- Each owner calls this once a second, mostly for an empty answer, so it must be cheap. One call in 64 cleans up.
if wants_warm or now % 64 == 0 then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
end
return {'OK', now, call('SMEMBERS', KEYS[2]), wants_warm and call('ZRANGE', KEYS[3], 0, -1) or {}}
