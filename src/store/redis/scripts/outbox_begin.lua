-- Claims the first delivery of a queue for an attempt.
--
-- KEYS  1 lease
-- Answers TAKEN id conversation target told data since made step | LATER due | EMPTY
local queue, token, window = ARGV[3], ARGV[4], ARGV[5]
-- Whether a delivery that waits for a retry begins before it is due.
local early = ARGV[6] == '1'

local id, held = first(queue, 's', 'c', 't', 'n', 'b')
if not id then
  return {'EMPTY', now}
end
local stands, begun = string.match(held[1], '^(.* )(%x*)$')
-- The same token is a repeat by the owner, which does not know whether the first request arrived.
if begun ~= token then
  local due = call('ZSCORE', DUE, queue)
  if due and now < tonumber(due) and not (early and begun == '') then
    return {'LATER', now, due}
  end
  call('HSET', partition .. 'd:' .. id, 's', stands .. token)
end
call('ZADD', DUE, string.format('%d', now + window), queue)
local since, made, step = string.match(stands, ' (%d+) (%d+) (%d+) $')
return {'TAKEN', now, id, held[2], held[3], held[4], held[5], since, made, step}
