-- Returns the state of a conversation, and asks the owner for the rest if that is another replica.
--
-- KEYS  1 lease  2 conversation
-- Answers OK record open last owner; `open` is the number of open messages, `last` the last clientMessageId
local by, number = ARGV[1], ARGV[2]

local held = call('HMGET', KEYS[2], 'r', 's')
local state = read_state(held[2])
local owner = call('HGET', KEYS[1], 'o') or ''
if owner ~= '' and owner ~= by then
  call('PUBLISH', channel(owner), hint('Q', {string.match(KEYS[2], '{p%d+}:c:(.*)$'), by, number}))
end
return {'OK', now, held[1] or '', #state.lane, state.last, owner}
