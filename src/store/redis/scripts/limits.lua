-- What a journal keeps at most, and for how long after its last entry; so long a conversation is kept that is idle.
-- A journal is kept for up to the spare longer, since its time is not set anew with each entry.
local MAX_ENTRIES, MAX_BYTES, JOURNAL_TTL, JOURNAL_SPARE = 1000, 4194304, '86400000', 3600000
-- Weight and number of a journal's entries are counted as one, WEIGHT * ENTRY + NUMBER: Lua is slow at taking texts
-- apart, and no journal comes near to so many entries.
local ENTRY = 65536
