-- Switches an endpoint off or on.
--
-- KEYS  1 endpoints
-- ARGV  1 name  2 `off` or `on`  3 the reason
-- Answers OK changed
local name, way, reason = ARGV[1], ARGV[2], ARGV[3]

local is_off = call('HEXISTS', KEYS[1], name .. ':d') == 1
if way == 'on' then
  -- Its failures count anew.
  call('HDEL', KEYS[1], name .. ':d', name .. ':r', name .. ':b')
elseif not is_off then
  call('HSET', KEYS[1], name .. ':d', string.format('%d', now), name .. ':r', reason)
end
return {'OK', now, (way == 'off') ~= is_off and 1 or 0}
