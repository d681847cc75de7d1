-- A journal is a list of entries, oldest first: `PLACE KIND AT WEIGHT BODY`. Places rise, mostly by one.
local function place_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- Returns the index of the first entry at this place or behind it.
local function find_place(journal, place)
  local length = call('LLEN', journal)
  if length == 0 then
    return 0
  end
  local low, high = 0, length
  -- Without holes the first place tells the index.
  local guess = place - place_of(call('LINDEX', journal, 0))
  if guess <= 0 then
    return 0
  elseif guess < length and place_of(call('LINDEX', journal, guess)) == place then
    return guess
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if place_of(call('LINDEX', journal, middle)) < place then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end
