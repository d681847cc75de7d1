-- Lists deliveries by the indexes, without their content.
--
-- KEYS  1 lease
-- Answers OK reached {id bytes} ..
-- The list has no order. It has all matches down to `reached`, and perhaps some behind it. It is complete if
-- `reached` is empty.
local before, oldest, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local bots, user, prefix, message, endpoint = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
-- The limit of the search if few deliveries match.
local LOOK = 1000

local answer = {'OK', now, ''}

-- Returns whether a delivery tells of the message and goes to the endpoint. No text of a caller is in these fields, so a
-- search finds these two alone.
local function tells_of(key)
  if message == '' and endpoint == '' then
    return true
  end
  local fields = call('HGET', key, 'n') or ''
  return (message == '' or string.find(fields, '"m":"' .. message .. '"', 1, true))
    and (endpoint == '' or string.find(fields, '"ep":"' .. endpoint .. '"', 1, true))
end
for i = 9, #ARGV do
  local index = partition .. 'x:' .. ARGV[i]
  local place, looked, found, more = before, 0, 0, true
  while more and found <= limit and looked < LOOK do
    local members = call('ZRANGE', index, place, oldest, 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
    more = #members > limit
    for _, member in ipairs(members) do
      local id = string.sub(member, 1, 26)
      place = '(' .. id
      if passes(string.sub(member, 28), bots, user, prefix) then
        local key = partition .. 'd:' .. id
        local bytes = call('HSTRLEN', key, 'b')
        if bytes == 0 then
          -- The delivery has expired, and no later one removed it from the index.
          call('ZREM', index, member)
        elseif tells_of(key) then
          bytes = bytes + (call('HGET', key, 'z') or 0)
          found = found + 1
          answer[#answer + 1] = {id, bytes}
        end
      end
    end
    looked = looked + #members
  end
  if more then
    local reached = string.sub(place, 2)
    answer[3] = reached > answer[3] and reached or answer[3]
  end
end
return answer
