-- Counts a connect of a bot, if that keeps it within its limit in any 60 seconds.
--
-- KEYS  1 connects of the last minute: token -> when
-- Answers GRANTED | AT time
local token, limit = ARGV[1], tonumber(ARGV[2])
local SPAN = 60000

call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - SPAN)
-- A repeat was counted already.
if call('ZSCORE', KEYS[1], token) then
  return {'GRANTED', now}
end
local spent = call('ZCARD', KEYS[1])
if spent < limit then
  call('ZADD', KEYS[1], now, token)
  call('PEXPIRE', KEYS[1], SPAN)
  return {'GRANTED', now}
end
-- The limit may have been lowered: then the oldest are not those that count.
local oldest = call('ZRANGE', KEYS[1], spent - limit, spent - limit, 'WITHSCORES')
return {'AT', now, oldest[2] + SPAN}
