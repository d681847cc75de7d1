-- Records that a replica is alive, and returns the live replicas. A member is the incarnation followed by the name.
--
-- KEYS  1 replicas  2 bots
-- Answers OK members known
local member, bots, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local own_channel, fleet_channel, echo = ARGV[4], ARGV[5], ARGV[6]

local last = call('ZSCORE', KEYS[1], member)
call('ZADD', KEYS[1], now + ttl, member)
call('HSET', KEYS[2], member, bots)
-- A late replica keeps its line, so a pause of the store removes no name.
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
