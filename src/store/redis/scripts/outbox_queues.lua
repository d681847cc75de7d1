-- Returns some queues of a partition's outbox.
--
-- KEYS  1 lease
-- Answers OK cursor {queue due target since endpoint} ..; the cursor is 0 at the end
local from, about = ARGV[3], ARGV[4]

-- A scan returns every queue that exists from its beginning to its end, over any change in between.
local scanned = call('ZSCAN', DUE, from, 'COUNT', about)
local answer = {'OK', now, scanned[1]}
for i = 1, #scanned[2], 2 do
  local queue, due = scanned[2][i], scanned[2][i + 1]
  local _, held = first(queue, 't', 's', 'n', 'c')
  if held then
    local since = string.match(held[2] or '', ' (%d+) %d+ %d+ %x*$') or '0'
    answer[#answer + 1] = {queue, due, held[1], since, endpoint_of(held[3], held[4])}
  end
end
return answer
