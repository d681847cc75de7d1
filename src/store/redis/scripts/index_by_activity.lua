-- Lists conversations of a partition, newest activity first. Names of one time follow each other backwards.
--
-- KEYS  1 lease  2 activity  3 names
--
-- ARGV  1 bots  2 start of the identities  3 limit  4 oldest activity  5 score and  6 name of the place before
-- Answers OK owner score name {name score write last open} ..
-- The list reaches to the place with that score and name. It is complete if the name is empty. `write` and `last` are
-- those of `conversation.lua`, `open` is the number of open messages.
local score, name, from = ARGV[5], ARGV[6], 0
if name ~= '' then
  from = call('ZCOUNT', KEYS[2], '(' .. score, '+inf')
  local same = call('ZCOUNT', KEYS[2], score, score)
  from = search(from, from + same, function(rank)
    return before(call('ZRANGE', KEYS[2], rank, rank, 'REV')[1], name)
  end)
end
local looked, found, more = 0, 0, true
while more do
  local members = call('ZRANGE', KEYS[2], from + looked, from + looked + limit, 'REV', 'WITHSCORES')
  more = #members > 2 * limit
  for i = 1, #members, 2 do
    if found == limit or looked >= LOOK then
      return answer
    end
    name, score = members[i], members[i + 1]
    if score ~= 'inf' and tonumber(score) < since then
      more = false
      break
    end
    looked = looked + 1
    answer[4], answer[5] = score, name
    if passes(name, bots, '', prefix) then
      found = found + add(name, score)
    end
  end
end
answer[4], answer[5] = '', ''
return answer
