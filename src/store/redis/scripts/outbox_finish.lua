-- Records the end of an attempt.
--
-- KEYS  1 lease
-- Answers OK due; the time of the queue's first delivery, empty for an empty queue
local queue, id, ours, attempt, kept = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- Deliveries that report a dead letter follow from ARGV[12] on: id, `QUEUE SINCE`, target, fields, data.
-- The new state, its delay or lifetime, whether it is a step of the schedule, and the reason.
local state, span, stepped, reason = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

-- Attempts up to this size do not count. A page of 1000 deliveries with 32 of them each has 4 MiB.
local SMALL = 128

local key, list = partition .. 'd:' .. id, partition .. 'o:' .. queue
local held = call('HMGET', key, 's', 'c', 'r')
local _, of, since, made, step, token = string.match(held[1] or '', STANDS)
local ahead = call('LRANGE', list, 0, 1)
if of ~= queue or ahead[1] ~= id or token ~= ours then
  -- This is a repeat, or the delivery left the queue, or another attempt began since.
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
-- An answer of a receiver can be far larger than the delivery, so lists are bounded by both. Dropped attempts still
-- count, because this is an upper bound.
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
for i = 12, #ARGV, 5 do
  local report = partition .. 'd:' .. ARGV[i]
  if call('EXISTS', report) == 0 then
    call('HSET', report, 'c', held[2], 't', ARGV[i + 2], 'n', ARGV[i + 3], 'b', ARGV[i + 4],
      's', 'pending ' .. ARGV[i + 1] .. ' 0 0 ')
    call('ZADD', PENDING, 0, ARGV[i] .. ' ' .. held[2])
    local of = string.sub(ARGV[i + 1], 1, 32)
    if call('RPUSH', partition .. 'o:' .. of, ARGV[i]) == 1 then
      call('ZADD', DUE, string.format('%d', now), of)
    end
  end
end
call('PEXPIRE', key, span)
call('ZREM', PENDING, member)
call('ZADD', index, 0, member)
call('PEXPIRE', index, span)
-- Removes expired deliveries from the index, oldest first. The owner records nearly all successes by `settle_delivery.lua`,
-- and every tenth here. Each may remove more than were added meanwhile.
for _, old in ipairs(call('ZRANGE', index, 0, 15)) do
  if call('EXISTS', partition .. 'd:' .. string.sub(old, 1, 26)) == 1 then
    break
  end
  call('ZREM', index, old)
end
return {'OK', now, ahead[2] and now or ''}
