-- Passes a signal of a user on to the owner of the partition, without a trace in the store.
--
-- KEYS  1 lease
-- ARGV  1 the hint
-- Answers OK owner
local owner = call('HGET', KEYS[1], 'o') or ''
if owner ~= '' then
  call('PUBLISH', channel(owner), ARGV[1])
end
return {'OK', now, owner}
