-- Deletes messages of a conversation.
--
-- KEYS  1 lease
-- ARGV  3 conversation  4 .. messages
-- Answers OK
for i = 4, #ARGV do
  if is_of(ARGV[i], ARGV[3]) then
    call('DEL', partition .. 'm:' .. ARGV[i])
  end
end
return {'OK', now}
