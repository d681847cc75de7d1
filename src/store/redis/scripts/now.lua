-- Returns the time.
--
-- KEYS  1 any key of the server
return {'OK', now}
