-- Notes a replica where somebody waits for the end of a message that is open. `fields` are all of the message's.
-- Incarnations are of one length and stand apart, so that a match is a whole one.
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
