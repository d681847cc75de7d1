-- Returns the channel of a replica. KEYS[1] is a lease.
local function channel(of)
  return string.match(KEYS[1], '^(.*:){p%d+}:lease$') .. 'replica:' .. of
end
