-- Returns the record and the lane of a conversation.
--
-- KEYS  1 lease  2 ready  3 conversation
-- Answers OK record positions lane {{id fields} ..} {observer ..}; a missing value is empty
local partition = string.sub(KEYS[1], 1, -6)
local name = string.sub(KEYS[3], #partition + 3)

local held = call('HMGET', KEYS[3], 'r', 'n', 'l', 'x')
local lane = held[3] or ''
local messages, kept = {}, string.match(lane, '^%d*')
for id in string.gmatch(lane, ' (%w+)') do
  local fields = call('HGETALL', partition .. 'm:' .. id)
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
  call('HSET', KEYS[3], 'l', kept)
  if kept == '' then
    call('SREM', KEYS[2], name)
    call('PEXPIRE', KEYS[3], JOURNAL_TTL)
  end
end
local observers = {}
for observer, till in string.gmatch(held[4] or '', '(%x+):(%d+)') do
  if now < tonumber(till) then
    observers[#observers + 1] = observer
  end
end
return {'OK', now, held[1] or '', held[2] or '', kept, messages, observers}
