-- Returns the rhythm of a bot.
--
-- KEYS  1 rhythm
-- Answers OK | OK version state
local stored = call('HMGET', KEYS[1], 'v', 's')
if not stored[1] then
  return {'OK', now}
end
return {'OK', now, stored[1], stored[2]}
