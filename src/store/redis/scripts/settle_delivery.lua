-- Records that the first attempt of a delivery succeeded, as the owner prepared it. It refuses a delivery that has another
-- status than the owner knows: the status names the queue and the attempt.
--
-- KEYS  1 lease  2 delivery  3 queue's list  4 due  5 index of pending deliveries  6 index of delivered ones
--
-- ARGV  1 fence  2 known status  3 delivery's id  4 queue  5 now  6 its name in the indexes  7 its lifetime  8 .. fields
--
-- Answers 1 for a queue with another delivery, 2 for an empty one, or 0 if nothing changed.
local call = redis.call
if call('HGET', KEYS[1], 'f') ~= ARGV[1] or call('HGET', KEYS[2], 's') ~= ARGV[2] then
  return 0
end
call('HSET', KEYS[2], unpack(ARGV, 8))
call('PEXPIRE', KEYS[2], ARGV[7])
call('ZREM', KEYS[5], ARGV[6])
call('ZADD', KEYS[6], 0, ARGV[6])
call('PEXPIRE', KEYS[6], ARGV[7])
call('LREM', KEYS[3], 1, ARGV[3])
if call('EXISTS', KEYS[3]) == 1 then
  call('ZADD', KEYS[4], ARGV[5], ARGV[4])
  return 1
end
call('ZREM', KEYS[4], ARGV[4])
return 2
