-- Counts a connect of a bot, if the bot stays within its limit in any 60 seconds.
--
-- KEYS  1 connects of the last minute: token -> time
-- Answers GRANTED | AT time
local token, limit, reserved = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local SPAN = 60000

call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - SPAN)
-- A repeat is already counted.
if call('ZSCORE', KEYS[1], token) then
  return {'GRANTED', now}
end
-- A reservation serves one connect, which counts from the time of the reservation.
local since = call('ZSCORE', KEYS[1], reserved)
if since then
  call('ZREM', KEYS[1], reserved)
  call('ZADD', KEYS[1], since, token)
  return {'GRANTED', now}
end
local spent = call('ZCARD', KEYS[1])
if spent < limit then
  call('ZADD', KEYS[1], now, token)
  call('PEXPIRE', KEYS[1], SPAN)
  return {'GRANTED', now}
end
-- If the limit was lowered, the oldest connects are not the ones that count.
local oldest = call('ZRANGE', KEYS[1], spent - limit, spent - limit, 'WITHSCORES')
return {'AT', now, oldest[2] + SPAN}
