-- The queues of a partition's outbox. KEYS[1] is the lease. Where a delivery stands is one field of its hash, `s`:
-- `STATE QUEUE SINCE MADE STEP TOKEN`, the last of them empty where no attempt was begun.
local partition = string.sub(KEYS[1], 1, -6)
local DUE, PENDING = partition .. 'due', partition .. 'x:pending'
local STANDS = '^(%a+) (%x+) (%d+) (%d+) (%d+) (%x*)$'

-- The first delivery of a queue, and fields of it. One that is not there is taken out: a store that evicts (which it
-- is told not to) may have lost it. Nobody could end it, and what is behind it would wait for ever.
local function first(queue, ...)
  local list = partition .. 'o:' .. queue
  local id = call('LINDEX', list, 0)
  while id do
    local held = call('HMGET', partition .. 'd:' .. id, ...)
    if held[1] then
      return id, held
    end
    call('LPOP', list)
    call('ZADD', DUE, now, queue)
    id = call('LINDEX', list, 0)
  end
  call('ZREM', DUE, queue)
end
