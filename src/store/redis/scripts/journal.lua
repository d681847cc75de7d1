-- Entries of a journal after a place.
--
-- KEYS  1 journal
-- Answers OK entries
return {'OK', now, call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])}
