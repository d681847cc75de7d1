-- Says that a replica lives, and asks who else does. A member is the incarnation and the name behind it.
--
-- KEYS  1 replicas  2 bots
-- Answers OK members known
local member, bots, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local own_channel, fleet_channel, echo = ARGV[4], ARGV[5], ARGV[6]

local last = call('ZSCORE', KEYS[1], member)
call('ZADD', KEYS[1], now + ttl, member)
call('HSET', KEYS[2], member, bots)
-- Those that are only late keep their line, so that a pause of the store takes nobody's name away.
local dead = call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 9 * ttl)
for _, gone in ipairs(dead) do
  call('ZREM', KEYS[1], gone)
  call('HDEL', KEYS[2], gone)
end
call('PUBLISH', own_channel, hint('B', {echo}))
if not last or tonumber(last) <= now then
  call('PUBLISH', fleet_channel, hint('F', {}))
end
return {'OK', now, call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'), last and 1 or 0}
