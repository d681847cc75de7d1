-- Returns the conversations with open messages, and those that are still warm.
--
-- KEYS  1 lease  2 activity  3 warm
-- Answers OK ready warm
local wants_warm, journal_ttl = ARGV[3] == '1', ARGV[4]
-- The limit of conversations that leave the index in one call. The next call removes more.
local EXPIRED = 500

local ready = {}
for _, name in ipairs(call('ZRANGEBYSCORE', KEYS[2], '+inf', '+inf')) do
  if has_open(call('HGET', partition .. 'c:' .. name, 's')) then
    ready[#ready + 1] = name
  elseif wants_warm then
    -- The owner before had no time to do so.
    rest(name, journal_ttl)
  end
end
if wants_warm or now % 64 == 0 then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  for _, name in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', now - JOURNAL_TTL, 'LIMIT', 0, EXPIRED)) do
    call('ZREM', KEYS[2], name)
    call('ZREM', partition .. 'names', name)
  end
end
return {'OK', now, ready, wants_warm and call('ZRANGE', KEYS[3], 0, -1) or {}}
