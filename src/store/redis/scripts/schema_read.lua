#!lua flags=no-writes
-- Returns the fields of the schema key, or its type if it is no hash.
-- KEYS: schema.
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'hash' and kind ~= 'none' then return kind end
return redis.call('HGETALL', KEYS[1])
