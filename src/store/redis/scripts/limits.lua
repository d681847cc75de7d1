-- The limits of a journal, and its lifetime after the last entry. An idle conversation has the same lifetime.
local MAX_ENTRIES, MAX_BYTES, JOURNAL_TTL = 1000, 4194304, '86400000'
-- One number holds the weight and the count of a journal's entries: WEIGHT * ENTRY + COUNT. Lua parses texts slowly,
-- and no journal has that many entries.
local ENTRY = 65536
