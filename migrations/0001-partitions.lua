-- Runs on the schema key.
-- Layout 3: a conversation has a version and a state, a message is one string, a journal is a list.
-- Fixes how conversations are dealt onto partitions: how many there are, and what their number is computed from.
-- Keys are grouped by it, so it can never change under a store that holds data; every start compares it. What is
-- there already stays: where it says something else, the comparison refuses the store.
redis.call('HSETNX', KEYS[1], 'partitions', '256')
redis.call('HSETNX', KEYS[1], 'partition_hash', 'sha256(bot NUL user), first byte')
