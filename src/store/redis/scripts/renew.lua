-- Renews leases, also expired ones.
--
-- KEYS  the leases
--
-- ARGV  1 their lifetime, then incarnation and epoch of each
-- Answers OK word ..; OK, FENCED or LOST for each lease, as in `fence.lua`
local answer = {'OK', now}
for i, key in ipairs(KEYS) do
  local incarnation, epoch = ARGV[2 * i], ARGV[2 * i + 1]
  local lease = call('HMGET', key, 'o', 'e')
  if lease[1] == incarnation and lease[2] == epoch then
    call('HSET', key, 'u', now + ARGV[1])
    answer[i + 2] = 'OK'
  elseif not lease[2] or tonumber(lease[2]) < tonumber(epoch) then
    answer[i + 2] = 'LOST'
  else
    answer[i + 2] = 'FENCED'
  end
end
return answer
