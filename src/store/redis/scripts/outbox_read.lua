-- Returns deliveries, without the missing ones.
--
-- KEYS  1 lease
-- Answers OK {id due fields} ..; `due` is set for the first of a queue only
local answer = {'OK', now}
for i = 1, #ARGV do
  local id = ARGV[i]
  local fields = call('HGETALL', partition .. 'd:' .. id)
  local due = ''
  for f = 1, #fields, 2 do
    local queue = fields[f] == 's' and string.match(fields[f + 1], '^pending (%x+)')
    if queue and call('LINDEX', partition .. 'o:' .. queue, 0) == id then
      due = call('ZSCORE', DUE, queue) or ''
    end
  end
  if #fields > 0 then
    answer[#answer + 1] = {id, due, fields}
  end
end
return answer
