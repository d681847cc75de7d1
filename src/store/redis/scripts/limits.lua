-- What a journal keeps at most, and for how long after its last entry; so long a conversation is kept that is idle.
local MAX_ENTRIES, MAX_BYTES, JOURNAL_TTL = 1000, 4194304, '86400000'
