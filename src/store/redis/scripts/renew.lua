-- Renews a lease, also one that has run out.
--
-- KEYS  1 lease
call('HSET', KEYS[1], 'u', now + ARGV[3])
return {'OK', now}
