-- Carries out the prepared commands of a conversation's owner. It refuses them if another replica changed the conversation
-- since. The script reads no text, so it is much cheaper than the scripts that decide for themselves.
--
-- KEYS  1 lease  2 conversation  3 .. keys that must not exist
--
-- ARGV  1 fence  2 known version  3 next version  4 .. the commands
--
-- Each command follows the number of its words. Answers 1, or 0 if no command ran.
local call = redis.call
if call('HGET', KEYS[1], 'f') ~= ARGV[1] then
  return 0
end
local version = call('HGET', KEYS[2], 'v')
if version ~= ARGV[2] then
  if version ~= ARGV[3] then
    return 0
  end
  -- This repeat changes nothing. It gives a WAIT behind it a write to wait for.
  call('HSET', KEYS[2], 'v', version)
  return 1
end
if KEYS[3] and call('EXISTS', unpack(KEYS, 3)) > 0 then
  return 0
end
local at = 4
while ARGV[at] do
  local last = at + ARGV[at]
  -- An expired message must not come back with a late reply alone, without an expiry.
  if ARGV[at + 1] ~= 'APPEND' or call('EXISTS', ARGV[at + 2]) == 1 then
    call(unpack(ARGV, at + 1, last))
  end
  at = last + 1
end
return 1
