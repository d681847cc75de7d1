-- Begins every script of an owner: checks its fencing token. KEYS[1] is the lease. ARGV[1] and ARGV[2] are the
-- incarnation and the epoch of the claim. The time does not matter: only another claim lets another owner write.
local lease = call('HMGET', KEYS[1], 'o', 'e')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  -- Epochs only rise. A missing epoch, or one older than ours, means lost data.
  if not lease[2] or tonumber(lease[2]) < tonumber(ARGV[2]) then
    return {'LOST', now}
  end
  return {'FENCED', now}
end
