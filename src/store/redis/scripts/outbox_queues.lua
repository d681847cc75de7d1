-- Some queues of a partition's outbox.
--
-- KEYS  1 lease
-- Answers OK cursor {queue due target since} ..; the cursor is 0 where these were the last
local from, about = ARGV[3], ARGV[4]

-- A scan leaves out nothing that is there from its beginning to its end, whatever comes, goes and changes its time.
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
