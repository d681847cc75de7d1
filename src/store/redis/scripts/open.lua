-- Returns the record and the lane of a conversation.
--
-- KEYS  1 lease  2 activity  3 conversation
-- Answers OK record positions lane {{id fields} ..} {observer ..} cache; a missing value is empty
local journal_ttl = ARGV[3]
local name = string.sub(KEYS[3], #partition + 3)

local held = call('HMGET', KEYS[3], 'r', 'n', 'l', 'x')
local lane = held[3] or ''
local messages, kept = {}, string.match(lane, '^%d*')
for id in string.gmatch(lane, ' (%w+)') do
  local fields = message_fields(partition .. 'm:' .. id, partition .. 'j:' .. name)
  if #fields > 0 then
    messages[#messages + 1] = {id, fields}
    kept = kept .. ' ' .. id
  end
end
-- A store that evicts against our advice may have lost a message but not its place in the lane. Such a message could
-- never end, and would count as open for ever.
if #messages == 0 then
  kept = ''
end
if kept ~= lane then
  call('HSET', KEYS[3], 'l', kept, 'v', VERSION)
  if kept == '' then
    rest(name, journal_ttl)
  end
end
if kept ~= '' then
  activate(name)
end
local observers = {}
for observer, till in string.gmatch(held[4] or '', '(%x+):(%d+)') do
  if now < tonumber(till) then
    observers[#observers + 1] = observer
  end
end
return {'OK', now, held[1] or '', held[2] or '', kept, messages, observers, cached(name)}
