-- Prolongs the hints at new entries of conversations, all of one partition.
--
-- KEYS  1 lease  2 .. conversations
-- Answers OK
for i = 2, #KEYS do
  observe(KEYS[i], call('HMGET', KEYS[i], 'x', 'r', 's'), ARGV[1], ARGV[2], ARGV[3])
end
return {'OK', now}
