-- Notes a replica on which a caller waits for the end of an open message. `fields` are all fields of the message.
-- Incarnations have one length and a separator, so a match is always a whole one.
local function watch(key, fields, watcher)
  local watchers
  for i = 1, #fields, 2 do
    if fields[i] == 'o' then
      return
    elseif fields[i] == 'w' then
      watchers = fields[i + 1]
    end
  end
  if not watchers then
    call('HSET', key, 'w', watcher)
  elseif not string.find(watchers, watcher, 1, true) then
    call('HSET', key, 'w', watchers .. ' ' .. watcher)
  end
end
