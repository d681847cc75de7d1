-- Removes a replica from the fleet.
--
-- KEYS  1 replicas  2 bots
local incarnation, fleet_channel = ARGV[1], ARGV[2]

for _, member in ipairs(call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(member, 1, 16) == incarnation then
    call('ZREM', KEYS[1], member)
    call('HDEL', KEYS[2], member)
  end
end
call('PUBLISH', fleet_channel, hint('F', {}))
return {'OK', now}
