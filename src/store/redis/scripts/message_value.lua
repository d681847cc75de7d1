-- A message is one string of netstrings (the length in bytes, ':', the bytes).
--
--   1     its conversation
--   2     `POSITION CLIENTMESSAGEID AT BODY`
--   3     empty while it is open, then `SIGNS REPLIES AT WEIGHT OUTCOME`, with REPLIES as in `conversation.lua`
--   4 ..  `PLACE` of a reply after the end, and `PLACE TEXT` of each reply that the journal no longer holds
local function netstring(part)
  return #part .. ':' .. part
end

local function parts_of(value)
  local parts, at = {}, 1
  while at <= #value do
    local _, colon = string.find(value, ':', at, true)
    local last = colon + string.sub(value, at, colon - 1)
    parts[#parts + 1] = string.sub(value, colon + 1, last)
    at = last + 1
  end
  return parts
end

-- Returns a message of this conversation as value and parts, or nothing.
local function message_of(name, id)
  local value = call('GET', partition .. 'm:' .. id)
  if value then
    local parts = parts_of(value)
    if parts[1] == name then
      return value, parts
    end
  end
end

-- Returns the parts that the bridge decodes a message from: its value, and SIGNS if it is open. Place and text of each
-- reply in the journal follow.
local function message_answer(name, id, value, parts, open)
  local answer = {value, open and open.signs or ''}
  local places = open and open.replies or string.match(parts[3], '^[%d,]* ([%d+]*)') or ''
  local held = {}
  for i = 4, #parts do
    local place, text = string.match(parts[i], '^(%d+)(.*)$')
    if text == '' then
      places = places .. '+' .. place
    else
      held[place] = true
    end
  end
  local journal = partition .. 'j:' .. name
  for place in string.gmatch(places, '%d+') do
    local entry = not held[place] and call('LINDEX', journal, find_place(journal, tonumber(place)))
    local text = entry and string.match(entry, '^' .. place .. ' r (.*)$')
    -- The place may belong to another journal by now. A reply whose journal was lost is lost too.
    if text and string.find(text, '"i":"' .. id .. '"', 1, true) then
      answer[#answer + 1] = place
      answer[#answer + 1] = text
    end
  end
  return answer
end

-- Reads a message and notes a watcher of its end; an empty one is none. Returns the answer, empty without the message,
-- and the version before if the watcher is new.
local function read_message(name, id, watcher)
  local value, parts = message_of(name, id)
  if not value then
    return {}
  end
  local open, known
  if parts[3] == '' then
    local key = partition .. 'c:' .. name
    local held = call('HMGET', key, 's', 'v')
    local state = read_state(held[1])
    open = find_open(state, id)
    if open and watcher ~= '' and not string.find(open.watchers, watcher, 1, true) then
      open.watchers = open.watchers == '' and watcher or open.watchers .. '+' .. watcher
      call('HSET', key, 's', format_state(state), 'v', VERSION)
      known = held[2] or ''
    end
  end
  return message_answer(name, id, value, parts, open), known
end
