-- Moves a delivery to a queue of its own, due now.
--
-- KEYS  1 lease
-- Answers QUEUED | INFLIGHT | UNKNOWN
local id, alone, wish = ARGV[1], ARGV[2], ARGV[3]

local key = partition .. 'd:' .. id
local held = call('HMGET', key, 's', 'c', 'q')
if not held[1] then
  return {'UNKNOWN', now}
end
-- This is a repeat of a request whose answer was lost.
if held[3] == wish then
  return {'QUEUED', now}
end
local state, queue, _, made, _, token = string.match(held[1], STANDS)
if state == 'pending' then
  local due = token ~= '' and call('ZSCORE', DUE, queue)
  if due and now < tonumber(due) then
    return {'INFLIGHT', now}
  end
  local list = partition .. 'o:' .. queue
  local ahead = call('LINDEX', list, 0)
  call('LREM', list, 1, id)
  if call('EXISTS', list) == 0 then
    call('ZREM', DUE, queue)
  elseif ahead == id then
    call('ZADD', DUE, now, queue)
  end
else
  local member = id .. ' ' .. held[2]
  call('ZREM', partition .. 'x:' .. state, member)
  call('ZADD', PENDING, 0, member)
  call('PERSIST', key)
end
call('HSET', key, 's', table.concat({'pending', alone, string.format('%d', now), made, '0 '}, ' '), 'q', wish)
call('HDEL', key, 'r')
call('RPUSH', partition .. 'o:' .. alone, id)
call('ZADD', DUE, now, alone)

local owner = call('HGET', KEYS[1], 'o')
if owner and owner ~= '' then
  call('PUBLISH', channel(owner), hint('R', {string.match(KEYS[1], '{p(%d+)}:lease$')}))
end
return {'QUEUED', now}
