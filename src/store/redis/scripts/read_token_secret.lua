-- Returns the secret of a day, and stores a new one if there is none.
--
-- KEYS  1 secret
-- ARGV  1 new secret, or empty  2 lifetime
-- Answers OK | OK secret
local stored = call('GET', KEYS[1])
if not stored and ARGV[1] ~= '' then
  stored = ARGV[1]
  call('SET', KEYS[1], stored, 'PX', ARGV[2])
end
if not stored then
  return {'OK', now}
end
return {'OK', now, stored}
