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

-- Returns the fields of a message. A field `rPLACE` without a value is a reply that only the journal holds.
local function message_fields(key, journal)
  local fields = call('HGETALL', key)
  local known = {}
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    if value == '' and string.sub(field, 1, 1) == 'r' then
      local place = string.sub(field, 2)
      local entry = call('LINDEX', journal, find_place(journal, tonumber(place)))
      value = entry and string.match(entry, '^' .. place .. ' r (.*)$')
      -- The place may belong to another journal by now. A reply whose journal was lost is lost too.
      if value and not string.find(value, '"i":"' .. string.sub(key, -26) .. '"', 1, true) then
        value = nil
      end
    end
    if value then
      known[#known + 1] = field
      known[#known + 1] = value
    end
  end
  return known
end
