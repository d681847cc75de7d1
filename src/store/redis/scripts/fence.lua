-- Begins every script of an owner. KEYS[1] is the lease, ARGV[1] and ARGV[2] are the incarnation and the epoch that
-- it was claimed with. Time has no say here: until somebody else claims the partition nobody else writes to it.
local lease = call('HMGET', KEYS[1], 'o', 'e')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  -- Epochs only rise: an older one than ours, or none, is data that was lost.
  if not lease[2] or tonumber(lease[2]) < tonumber(ARGV[2]) then
    return {'LOST', now}
  end
  return {'FENCED', now}
end
