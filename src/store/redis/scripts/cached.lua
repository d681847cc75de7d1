-- Returns the state of a conversation for the owner's cache: version, field `s`, observers, 1 if it is at rest, and the
-- journal's last place. Part 2 of each open message follows. A missing value is empty.
local function cached(name)
  local held = call('HMGET', partition .. 'c:' .. name, 'v', 's', 'x')
  local newest = call('LINDEX', partition .. 'j:' .. name, -1)
  local answer = {
    held[1] or '', held[2] or '', held[3] or '', call('ZSCORE', KEYS[2], name) == 'inf' and 0 or 1,
    newest and string.match(newest, '^%d+') or '',
  }
  for _, open in ipairs(read_state(held[2]).lane) do
    local _, parts = message_of(name, open.id)
    answer[#answer + 1] = parts and parts[2] or ''
  end
  return answer
end
