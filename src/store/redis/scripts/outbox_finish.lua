-- Notes how an attempt ended.
--
-- KEYS  1 lease
-- Answers OK due; of the queue's first, empty where the queue is
local queue, id, ours, attempt, kept = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- What it is from now on; for how long it waits, or is kept; whether that is a step of the schedule; and why.
local state, span, stepped, reason = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

-- An attempt of so many bytes is not worth counting: a page of a thousand deliveries with 32 of these each is 4 MiB.
local SMALL = 128

local key, list = partition .. 'd:' .. id, partition .. 'o:' .. queue
local held = call('HMGET', key, 's', 'c', 'r')
local _, of, since, made, step, token = string.match(held[1] or '', STANDS)
local ahead = call('LRANGE', list, 0, 1)
if of ~= queue or ahead[1] ~= id or token ~= ours then
  -- A repeat, or of a delivery that was taken out of this queue since, or of an attempt that was not the last.
  return {'OK', now, call('ZSCORE', DUE, queue) or ''}
end

local number = string.format('%d', made + 1)
local stands = string.format('%s %s %s %s %d ', state, queue, since, number, step + stepped)
if reason ~= '' then
  call('HSET', key, 's', stands, 'a' .. number, attempt, 'r', reason)
else
  call('HSET', key, 's', stands, 'a' .. number, attempt)
  if held[3] then
    call('HDEL', key, 'r')
  end
end
-- What receivers answer can be far larger than what they are told; lists are bounded by both. Those that are dropped
-- still count: it is a bound.
if #attempt > SMALL then
  call('HINCRBY', key, 'z', #attempt)
end
if tonumber(number) > tonumber(kept) then
  call('HDEL', key, 'a' .. string.format('%d', number - kept))
end
if state == 'pending' then
  local due = string.format('%d', now + span)
  call('ZADD', DUE, due, queue)
  return {'OK', now, due}
end

call('LPOP', list)
if ahead[2] then
  call('ZADD', DUE, now, queue)
else
  call('ZREM', DUE, queue)
end
local member, index = id .. ' ' .. held[2], partition .. 'x:' .. state
call('PEXPIRE', key, span)
call('ZREM', PENDING, member)
call('ZADD', index, 0, member)
call('PEXPIRE', index, span)
-- Oldest first, so that what has expired is not named for much longer. Not with each, since it is as much work again
-- as the rest of its move; but twice as many may go as come.
if now % 8 == 0 then
  for _, old in ipairs(call('ZRANGE', index, 0, 15)) do
    if call('EXISTS', partition .. 'd:' .. string.sub(old, 1, 26)) == 1 then
      break
    end
    call('ZREM', index, old)
  end
end
return {'OK', now, ahead[2] and now or ''}
