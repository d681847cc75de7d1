-- Returns some queues of a partition's outbox.
--
-- KEYS  1 lease
-- Answers OK cursor {queue due target since} ..; the cursor is 0 at the end
local from, about = ARGV[3], ARGV[4]

-- A scan returns every queue that exists from its beginning to its end, over any change in between.
local scanned = call('ZSCAN', DUE, from, 'COUNT', about)
local answer = {'OK', now, scanned[1]}
for i = 1, #scanned[2], 2 do
  local queue, due = scanned[2][i], scanned[2][i + 1]
  local _, held = first(queue, 't', 's')
  if held then
    answer[#answer + 1] = {queue, due, held[1], string.match(held[2] or '', ' (%d+) %d+ %d+ %x*$') or '0'}
  end
end
return answer
