-- The activity of a partition's conversations: a sorted set by the time at which each came to rest, or `+inf` for an
-- active one. An active conversation does not expire. KEYS[2] is the sorted set.
--
-- Conversations that were at rest are in the set `names` too. All have one score there, so they are ordered by name.
local function activate(name)
  call('ZADD', KEYS[2], '+inf', name)
  call('PERSIST', KEYS[2])
  call('PERSIST', partition .. 'c:' .. name)
  call('PERSIST', partition .. 'j:' .. name)
end

-- Lets a conversation without open messages expire. Its journal also has the replies of its messages, so it stays as
-- long as they do. The new version refuses commands that the owner prepared for an active conversation.
--
-- A conversation without a record was erased, or a store that evicts against our advice has lost it. It leaves the
-- indexes.
local function rest(name, journal_ttl)
  if call('PEXPIRE', partition .. 'c:' .. name, JOURNAL_TTL) == 0 then
    call('ZREM', KEYS[2], name)
    call('ZREM', partition .. 'names', name)
    return
  end
  call('HSET', partition .. 'c:' .. name, 'v', VERSION)
  call('ZADD', KEYS[2], now, name)
  call('ZADD', partition .. 'names', 0, name)
  call('PEXPIRE', partition .. 'names', JOURNAL_TTL)
  if call('ZCOUNT', KEYS[2], '+inf', '+inf') == 0 then
    call('PEXPIRE', KEYS[2], JOURNAL_TTL)
  end
  call('PEXPIRE', partition .. 'j:' .. name, journal_ttl)
end
