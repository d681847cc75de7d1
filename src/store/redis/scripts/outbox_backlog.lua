-- Counts the pending deliveries of some queues by their endpoint.
--
-- KEYS  1 lease
-- Answers OK cursor {endpoint count} ..; the cursor is 0 at the end
local scanned = call('ZSCAN', DUE, ARGV[1], 'COUNT', ARGV[2])
local counts = {}
for i = 1, #scanned[2], 2 do
  local queue = scanned[2][i]
  local _, held = first(queue, 'n', 'c')
  local endpoint = held and endpoint_of(held[1], held[2]) or ''
  if endpoint ~= '' then
    counts[endpoint] = (counts[endpoint] or 0) + call('LLEN', partition .. 'o:' .. queue)
  end
end
local answer = {'OK', now, scanned[1]}
for endpoint, count in pairs(counts) do
  answer[#answer + 1] = {endpoint, count}
end
return answer
