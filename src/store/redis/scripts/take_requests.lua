-- Takes requests out of the bucket of a caller.
--
-- KEYS  1 bucket: t requests, at time
-- ARGV  1 size of the bucket, which refills within a minute  2 wanted  3 returned
-- Answers OK granted left next, the milliseconds until another request
local size, wanted, returned = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local SPAN = 60000

local stored = call('HMGET', KEYS[1], 't', 'at')
local tokens = tonumber(stored[1] or size)
local at = tonumber(stored[2] or now)
tokens = math.min(size, tokens + math.max(0, now - at) * size / SPAN + returned)
local granted = math.min(wanted, math.floor(tokens))
tokens = tokens - granted
call('HSET', KEYS[1], 't', string.format('%.6f', tokens), 'at', now)
call('PEXPIRE', KEYS[1], SPAN)
local left = math.floor(tokens)
local next = 0
if left < 1 then
  next = math.ceil((1 - tokens) * SPAN / size)
end
return {'OK', now, granted, left, next}
