-- Gives a partition back. The epoch stays, since it must rise for ever.
--
-- KEYS  1 lease
call('HSET', KEYS[1], 'o', '')
call('PUBLISH', ARGV[3], hint('F', {}))
return {'OK', now}
