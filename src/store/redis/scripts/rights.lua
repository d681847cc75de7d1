#!lua flags=allow-oom
-- Tries each command of the other scripts on a key of its own, and returns those that the user may not run. An error of
-- another kind, such as a wrong type, does not matter.
--
-- KEYS  1 the key
-- ARGV  1 a channel
local key, channel = KEYS[1], ARGV[1]
local commands = {
  {'TIME'}, {'SCAN', 0}, {'GET', key}, {'GETRANGE', key, 0, 0}, {'SET', key, ''}, {'APPEND', key, ''},
  {'EXISTS', key}, {'TYPE', key},
  {'PERSIST', key}, {'PUBLISH', channel, ''},
  {'HGET', key, 'f'}, {'HSET', key, 'f', ''}, {'HSETNX', key, 'f', ''}, {'HMGET', key, 'f'}, {'HGETALL', key},
  {'HDEL', key, 'f'}, {'HEXISTS', key, 'f'}, {'HINCRBY', key, 'f', 1}, {'HSTRLEN', key, 'f'},
  {'RPUSH', key, ''}, {'LPOP', key}, {'LINDEX', key, 0}, {'LLEN', key}, {'LRANGE', key, 0, 0}, {'LREM', key, 0, ''},
  {'LTRIM', key, 0, 0},
  {'ZADD', key, 0, ''}, {'ZREM', key, ''}, {'ZCARD', key}, {'ZCOUNT', key, 0, 0}, {'ZSCORE', key, ''}, {'ZSCAN', key, 0},
  {'ZRANGE', key, 0, 0}, {'ZRANGEBYSCORE', key, 0, 0}, {'ZREMRANGEBYSCORE', key, 0, 0},
  {'PEXPIRE', key, 1000}, {'DEL', key},
}
local denied = {}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    local err = answer.err
    if string.find(err, 'NOPERM', 1, true) or string.find(err, 'ACL', 1, true) or string.find(err, "can't ", 1, true) then
      table.insert(denied, command[1])
    end
  end
end
return denied
