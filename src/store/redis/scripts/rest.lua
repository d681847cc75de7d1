-- Lets conversations expire that an owner has left alone for a while. One with open messages stays active, and so does
-- one that changed since. Each gets a new version: a command that the owner prepared before finds another one.
--
-- KEYS  1 lease  2 activity
-- ARGV  3 lifetime of a journal  4 .. conversation and version, in turn; an empty version fits any
-- Answers OK version names; those that are at rest now
local journal_ttl, rested = ARGV[3], {}
for i = 4, #ARGV, 2 do
  local name, key = ARGV[i], partition .. 'c:' .. ARGV[i]
  local held = call('HMGET', key, 'v', 'l')
  if (held[2] or '') == '' and (ARGV[i + 1] == '' or held[1] == ARGV[i + 1]) then
    rest(name, journal_ttl)
    if held[1] then
      call('HSET', key, 'v', VERSION)
    end
    rested[#rested + 1] = name
  end
end
return {'OK', now, VERSION, rested}
