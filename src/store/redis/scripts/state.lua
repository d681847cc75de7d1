-- Returns the state of a conversation, and asks the owner for the rest if that is another replica.
--
-- KEYS  1 lease  2 conversation
-- Answers OK record lane positions owner; a missing value is empty
local by, number = ARGV[1], ARGV[2]

local held = call('HMGET', KEYS[2], 'r', 'l', 'n')
local owner = call('HGET', KEYS[1], 'o') or ''
if owner ~= '' and owner ~= by then
  call('PUBLISH', channel(owner), hint('Q', {string.match(KEYS[2], '{p%d+}:c:(.*)$'), by, number}))
end
return {'OK', now, held[1] or '', held[2] or '', held[3] or '', owner}
