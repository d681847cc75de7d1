-- Passes on what one replica tells another.
--
-- KEYS  1 any key of the server that is to pass it on
call('PUBLISH', ARGV[1], ARGV[2])
return {'OK', now}
