-- Returns whether a key exists.
--
-- KEYS  1 the key
-- Answers OK exists
return {'OK', now, call('EXISTS', KEYS[1])}
