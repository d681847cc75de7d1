-- The prefix of the partition's keys. KEYS[1] is the lease.
local partition = string.sub(KEYS[1], 1, -6)
