-- What a journal keeps at most, and for how long after its last entry; so long a conversation is kept that is idle.
local MAX_ENTRIES, MAX_BYTES, JOURNAL_TTL = 1000, 4194304, '86400000'
-- Weight and number of a journal's entries are counted as one, WEIGHT * ENTRY + NUMBER: Lua is slow at taking texts
-- apart, and no journal comes near to so many entries.
local ENTRY = 65536
