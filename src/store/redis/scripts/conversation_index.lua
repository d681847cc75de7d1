-- The index of a partition's conversations: the sorted sets of activity, KEYS[2], and of names, KEYS[3].
local bots, prefix, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local since = math.max(now - JOURNAL_TTL + 1, tonumber(ARGV[4]))
-- The limit of the search if few conversations match.
local LOOK = 500
local answer = {'OK', now, call('HGET', KEYS[1], 'o') or '', '', ''}

-- Returns whether one name stands before another by its bytes, as in a sorted set. Lua's own comparison follows the
-- locale of the server.
local function before(one, other)
  for i = 1, math.min(#one, #other) do
    local left, right = string.byte(one, i), string.byte(other, i)
    if left ~= right then
      return left < right
    end
  end
  return #one < #other
end

-- Returns the first rank from `low` on whose name is behind the place, or `high` if there is none.
local function search(low, high, is_behind)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_behind(middle) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

-- Adds a conversation, and returns how many were added. A store that evicts against our advice may have lost it.
local function add(name, score)
  local state = read_state(call('HGET', partition .. 'c:' .. name, 's'))
  local write = string.match(state.write, '^%d*')
  if write == '' and state.last == '' then
    return 0
  end
  answer[#answer + 1] = {name, score, write, state.last, #state.lane}
  return 1
end
