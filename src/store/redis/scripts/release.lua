-- Gives a partition back. The epoch stays, since it must rise for ever.
--
-- KEYS  1 lease
call('HSET', KEYS[1], 'o', '')
call('PUBLISH', ARGV[4], hint('F', {}))
return {'OK', now}
