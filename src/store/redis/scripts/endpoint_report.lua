-- Adds the attempts of one replica to the state of an endpoint.
--
-- KEYS  1 endpoints
-- ARGV  1 name  2 last success  3 first failure after it  4 last failure  5 its error; times are empty for none
-- Answers OK
local name, success, first, failure, error = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function stored(key)
  return tonumber(call('HGET', KEYS[1], name .. ':' .. key) or '0')
end
if success ~= '' and tonumber(success) > stored('s') then
  call('HSET', KEYS[1], name .. ':s', success)
end
local last_success, since = stored('s'), stored('b')
if since > 0 and since <= last_success then
  call('HDEL', KEYS[1], name .. ':b')
  since = 0
end
if failure ~= '' and tonumber(failure) > stored('f') then
  call('HSET', KEYS[1], name .. ':f', failure, name .. ':e', error)
end
if first ~= '' and tonumber(first) > last_success and (since == 0 or tonumber(first) < since) then
  call('HSET', KEYS[1], name .. ':b', first)
end
return {'OK', now}
