-- Looks through some keys of the server for messages, idempotency keys and deliveries of a conversation. Only a look at
-- all keys finds them, because an index would cost a command for each message. Deletes all but the messages, by which
-- a repeat finds their idempotency keys.
--
-- KEYS  1 lease
-- ARGV  3 conversation  4 cursor  5 number of keys
-- Answers OK cursor message ..; the cursor is 0 at the end
local name, from, count = ARGV[3], ARGV[4], ARGV[5]

local pattern = string.gsub(partition, '[%*%?%[%]\\]', '\\%0') .. '[mkd]:*'
local scanned = call('SCAN', from, 'MATCH', pattern, 'COUNT', count)
local answer = {'OK', now, scanned[1]}
for _, key in ipairs(scanned[2]) do
  local kind, id = string.sub(key, #partition + 1, #partition + 1), string.sub(key, #partition + 3)
  if kind == 'm' then
    if is_of(id, name) then
      answer[#answer + 1] = id
    end
  elseif kind == 'k' then
    if is_of(call('GETRANGE', key, 0, 25), name) then
      call('DEL', key)
    end
  elseif call('HGET', key, 'c') == name then
    -- All deliveries of a queue are of one conversation.
    local queue = string.match(call('HGET', key, 's') or '', '^pending (%x+)')
    if queue then
      call('DEL', partition .. 'o:' .. queue)
      call('ZREM', partition .. 'due', queue)
    end
    call('DEL', key)
  end
end
return answer
