-- Releases a partition. The epoch stays, because it must always rise.
--
-- KEYS  1 lease
call('HSET', KEYS[1], 'o', '', 'f', '')
call('PUBLISH', ARGV[3], hint('F', {}))
return {'OK', now}
