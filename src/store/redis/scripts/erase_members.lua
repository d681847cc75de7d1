-- Removes deliveries of a conversation from an index. Some of them may have expired, and only the index has their names.
--
-- KEYS  1 lease
-- ARGV  3 conversation  4 state of the deliveries  5 cursor  6 number of members
-- Answers OK cursor; 0 at the end
local name, index, from, count = ARGV[3], partition .. 'x:' .. ARGV[4], ARGV[5], ARGV[6]

local scanned = call('ZSCAN', index, from, 'COUNT', count)
for i = 1, #scanned[2], 2 do
  if string.sub(scanned[2][i], 28) == name then
    call('ZREM', index, scanned[2][i])
  end
end
return {'OK', now, scanned[1]}
