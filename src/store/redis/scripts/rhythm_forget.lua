-- Deletes the rhythm of a bot.
--
-- KEYS  1 rhythm
call('DEL', KEYS[1])
return {'OK', now}
