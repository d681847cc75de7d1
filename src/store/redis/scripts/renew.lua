-- Renews a lease, also an expired one.
--
-- KEYS  1 lease
call('HSET', KEYS[1], 'u', now + ARGV[3])
return {'OK', now}
