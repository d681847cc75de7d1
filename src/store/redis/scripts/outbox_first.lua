-- The queues of a partition's outbox. KEYS[1] is the lease. The status of a delivery is the field `s` of its hash:
-- `STATE QUEUE SINCE MADE STEP TOKEN`. The token is empty without an attempt.
local partition = string.sub(KEYS[1], 1, -6)
local DUE, PENDING = partition .. 'due', partition .. 'x:pending'
local STANDS = '^(%a+) (%x+) (%d+) (%d+) (%d+) (%x*)$'

-- Returns the first delivery of a queue with some of its fields, and removes missing deliveries. A store that evicts
-- against our advice may have lost one. It could never end, and the deliveries behind it would wait for ever.
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

-- Returns the endpoint of a delivery as `BOT/NAME`, or '' for a callback. No text of a caller is in these fields.
local function endpoint_of(fields, conversation)
  local name = string.match(fields or '', '"ep":"([^"]*)"')
  return name and string.match(conversation or '', '^[^/]*/') .. name or ''
end
