-- Returns the state of a conversation for the owner's cache. Eight values come first: version, last write,
-- positions, lane, journal's weight, observers, 1 for a conversation at rest, and the journal's last place. Three
-- follow for each open message: its signs, the digest of its key, and its watchers. A missing value is empty.
local function cached(name)
  local key = partition .. 'c:' .. name
  local held = call('HMGET', key, 'v', 'w', 'n', 'l', 'b', 'x')
  local answer = {}
  for i = 1, 6 do
    answer[i] = held[i] or ''
  end
  answer[7] = call('ZSCORE', KEYS[2], name) == 'inf' and 0 or 1
  local newest = call('LINDEX', partition .. 'j:' .. name, -1)
  answer[8] = newest and string.match(newest, '^%d+') or ''
  for id in string.gmatch(answer[4], ' (%w+)') do
    local message = call('HMGET', partition .. 'm:' .. id, 'p', 'd', 'w')
    for i = 1, 3 do
      answer[#answer + 1] = message[i] or ''
    end
  end
  return answer
end
