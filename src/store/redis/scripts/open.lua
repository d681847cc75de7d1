-- Returns the record and the lane of a conversation.
--
-- KEYS  1 lease  2 activity  3 conversation  4 journal
-- ARGV  3 lifetime of a journal  4 number of replies that the record has
-- Answers OK record next since {{id message} ..} {observer ..} replies cache; a missing value is empty. The replies are the
-- ids of those in the journal as JSON, oldest first, if it has more entries than the record has replies.
local journal_ttl = ARGV[3]
local name = string.sub(KEYS[3], #partition + 3)

local held = call('HMGET', KEYS[3], 'r', 's', 'x')
local state = read_state(held[2])
local messages, kept = {}, {}
for _, open in ipairs(state.lane) do
  local value, parts = message_of(name, open.id)
  if value then
    messages[#messages + 1] = {open.id, message_answer(name, open.id, value, parts, open)}
    kept[#kept + 1] = open
  elseif open.digest ~= '' then
    call('PEXPIRE', partition .. 'k:' .. open.digest, journal_ttl)
  end
end
-- A store that evicts against our advice may have lost a message but not its place in the lane. Such a message could
-- never end, and would count as open for ever.
if #kept < #state.lane then
  state.lane, state.since = kept, #kept > 0 and state.since or ''
  call('HSET', KEYS[3], 's', format_state(state), 'v', VERSION)
  if #kept == 0 then
    rest(name, journal_ttl)
  end
end
if #kept > 0 then
  activate(name)
end
local observers = {}
for observer, till in string.gmatch(held[3] or '', '(%x+):(%d+)') do
  if now < tonumber(till) then
    observers[#observers + 1] = observer
  end
end
local replies = {}
if call('LLEN', KEYS[4]) > tonumber(ARGV[4]) then
  for _, entry in ipairs(call('LRANGE', KEYS[4], 0, -1)) do
    -- The id is the first member of a reply, if it has one.
    replies[#replies + 1] = string.match(entry, '^%d+ r %d+ %d+ {"m":("[^"\\]*")')
  end
end
return {'OK', now, held[1] or '', state.next, state.since, messages, observers, table.concat(replies, ','), cached(name)}
