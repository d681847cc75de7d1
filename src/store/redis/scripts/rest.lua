-- Lets conversations expire that an owner has left alone for a while. One with open messages stays active, and so does
-- one that changed since.
--
-- KEYS  1 lease  2 activity
-- ARGV  3 lifetime of a journal  4 .. conversation and version, in turn; an empty version fits any
-- Answers OK version names; those that are at rest now
local journal_ttl, rested = ARGV[3], {}
for i = 4, #ARGV, 2 do
  local name = ARGV[i]
  local held = call('HMGET', partition .. 'c:' .. name, 'v', 's')
  if not has_open(held[2]) and (ARGV[i + 1] == '' or held[1] == ARGV[i + 1]) then
    rest(name, journal_ttl)
    rested[#rested + 1] = name
  end
end
return {'OK', now, VERSION, rested}
