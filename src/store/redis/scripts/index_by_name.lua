-- Lists conversations of a partition by name. Keys, arguments and answer are those of `index_by_activity.lua`. The list
-- has no order, and it may have some matches behind its place.
local after = ARGV[6]

-- Adds names, which `take` returns in order: those after a name, of which `looked` were taken before.
local function list(active, take)
  local last, looked, found, more = after, 0, 0, true
  while more do
    local names = take(last, looked)
    more = #names > limit
    for _, name in ipairs(names) do
      if found == limit or looked >= LOOK then
        if answer[5] == '' or before(last, answer[5]) then
          answer[5] = last
        end
        return
      end
      last, looked = name, looked + 1
      if passes(name, bots, '', prefix) then
        local score = active and 'inf' or call('ZSCORE', KEYS[2], name)
        -- The set of names has active conversations too, if they were at rest before.
        if active or score and score ~= 'inf' and tonumber(score) >= since then
          found = found + add(name, score)
        end
      end
    end
  end
end

-- Active conversations have one score, so the sorted set has them by name.
local first = search(call('ZCOUNT', KEYS[2], '-inf', '(inf'), call('ZCARD', KEYS[2]), function(rank)
  return before(after, call('ZRANGE', KEYS[2], rank, rank)[1])
end)
list(true, function(_, looked)
  return call('ZRANGE', KEYS[2], first + looked, first + looked + limit)
end)
list(false, function(last)
  return call('ZRANGE', KEYS[3], last == '' and '-' or '(' .. last, '+', 'BYLEX', 'LIMIT', 0, limit + 1)
end)
return answer
