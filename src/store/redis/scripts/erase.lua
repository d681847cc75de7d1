-- Deletes the rest of a conversation: its record, journal, lane and places in the indexes. The lane has the request for
-- the erasure, so it goes last.
--
-- KEYS  1 lease  2 activity  3 names  4 warm  5 conversation  6 journal
-- Answers OK message ..; those of the lane
local owner = ARGV[1]
local name = string.sub(KEYS[5], #partition + 3)

local answer = {'OK', now}
-- A missing right for this must not leave a lane without its record.
for i = 2, 4 do
  call('ZREM', KEYS[i], name)
end
for _, open in ipairs(read_state(call('HGET', KEYS[5], 's')).lane) do
  call('DEL', partition .. 'm:' .. open.id)
  if open.digest ~= '' then
    call('DEL', partition .. 'k:' .. open.digest)
  end
  for watcher in string.gmatch(open.watchers, '%x+') do
    if watcher ~= owner then
      call('PUBLISH', channel(watcher), hint('X', {name, open.id}))
    end
  end
  answer[#answer + 1] = open.id
end
call('DEL', KEYS[5], KEYS[6])
return answer
