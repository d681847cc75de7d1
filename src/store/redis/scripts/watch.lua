-- Notes a replica on which a caller waits for the end of an open message. `fields` are all fields of the message.
-- Incarnations have one length and a separator, so a match is always a whole one.
local function watch(key, fields, watcher, name)
  local watchers
  for i = 1, #fields, 2 do
    if fields[i] == 'o' then
      return
    elseif fields[i] == 'w' then
      watchers = fields[i + 1]
    end
  end
  watchers = watchers or ''
  if string.find(watchers, watcher, 1, true) then
    return
  end
  call('HSET', key, 'w', watchers == '' and watcher or watchers .. ' ' .. watcher)
  -- The owner must know of watchers elsewhere before it ends the message.
  local conversation = string.match(key, '^(.*)m:') .. 'c:' .. name
  if call('EXISTS', conversation) == 1 then
    call('HSET', conversation, 'v', VERSION)
  end
end
