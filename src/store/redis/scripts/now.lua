-- The time.
--
-- KEYS  1 any key of the server that is asked
return {'OK', now}
