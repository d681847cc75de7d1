-- Claims the first delivery of a queue for its first attempt, as the owner prepared it. It refuses a delivery that is not
-- the first one, or that has another status than the owner knows.
--
-- KEYS  1 lease  2 delivery  3 queue's list  4 due
--
-- ARGV  1 fence  2 known status  3 status with the token  4 delivery's id  5 end of the window  6 queue
--
-- Answers 1, or 0 if nothing changed.
local call = redis.call
if call('HGET', KEYS[1], 'f') ~= ARGV[1] or call('HGET', KEYS[2], 's') ~= ARGV[2] or call('LINDEX', KEYS[3], 0) ~= ARGV[4] then
  return 0
end
call('HSET', KEYS[2], 's', ARGV[3])
call('ZADD', KEYS[4], ARGV[5], ARGV[6])
return 1
