-- Publishes a hint of one replica to another.
--
-- KEYS  1 any key of the server that publishes it
call('PUBLISH', ARGV[1], ARGV[2])
return {'OK', now}
