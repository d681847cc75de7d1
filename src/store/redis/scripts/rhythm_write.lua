-- Writes the rhythm of a bot, if the stored one has the expected version.
--
-- KEYS  1 rhythm
-- Answers OK written
local expected, state, lifetime = ARGV[1], ARGV[2], ARGV[3]

local stored = call('HMGET', KEYS[1], 'v', 's')
-- A repeat finds its state.
if stored[2] ~= state then
  if (stored[1] or '') ~= expected then
    return {'OK', now, 0}
  end
  -- The time is a version that no forgotten rhythm had.
  local version = math.max(now, (tonumber(expected) or 0) + 1)
  call('HSET', KEYS[1], 'v', string.format('%.0f', version), 's', state)
end
call('PEXPIRE', KEYS[1], lifetime)
return {'OK', now, 1}
