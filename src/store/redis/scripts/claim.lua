-- Claims a partition.
--
-- KEYS  1 lease
-- Answers YOURS epoch | HELD by until
local incarnation, span, expired = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'

local lease = call('HMGET', KEYS[1], 'o', 'e', 'u')
local owner = lease[1]
if owner and owner ~= '' and owner ~= incarnation and not (expired and now >= tonumber(lease[3])) then
  return {'HELD', now, owner, lease[3]}
end
-- The epoch rises also if the store lost its newest data, and within one millisecond.
local epoch = math.max((lease[2] or 0) + 1, now)
epoch = string.format('%d', epoch)
call('HSET', KEYS[1], 'o', incarnation, 'e', epoch, 'f', incarnation .. ' ' .. epoch, 'u', now + span)
return {'YOURS', now, epoch}
