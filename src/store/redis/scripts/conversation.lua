-- The field `s` of a conversation: `WRITE NEXT LAST WEIGHT SINCE`, and one word for each open message, head first.
-- WRITE is the number of the last write, with `!` if it found a message lost. NEXT is the next position. LAST is the last
-- clientMessageId. WEIGHT is weight and number of the journal's entries, in one number (`limits.lua`). SINCE is the time at
-- which the first message became the head. Values that do not exist are empty.
--
-- The word of a message is `ID:SIGNS:DIGEST:WATCHERS:REPLIES:MOVED`. SIGNS are the times of sent, acknowledged and first
-- reply, with commas. DIGEST is that of its idempotency key. WATCHERS are the incarnations that get a hint at its end.
-- REPLIES are the places of its replies. Both have `+` between them. MOVED is `+` if the journal no longer holds all of
-- the replies.
local function read_state(text)
  local state, words = {lane = {}}, nil
  state.write, state.next, state.last, state.weight, state.since, words =
    string.match(text or '    ', '^(%d*!?) (%d*) (%d*) (%d*) (%d*)(.*)$')
  for id, signs, digest, watchers, replies, moved, later in
    string.gmatch(words, ' (%w+):([%d,]*):([%w_-]*):([%x+]*):([%d+]*):(%+?)(%S*)') do
    table.insert(state.lane,
      {id = id, signs = signs, digest = digest, watchers = watchers, replies = replies, moved = moved .. later})
  end
  -- A word that is left out would never end.
  assert(#state.lane == select(2, string.gsub(words, ' ', '')), 'unreadable state')
  return state
end

local function format_state(state)
  local words = {state.write, state.next, state.last, state.weight, state.since}
  for _, open in ipairs(state.lane) do
    words[#words + 1] = table.concat({open.id, open.signs, open.digest, open.watchers, open.replies, open.moved}, ':')
  end
  return table.concat(words, ' ')
end

-- Returns an open message and its place in the lane.
local function find_open(state, id)
  for index, open in ipairs(state.lane) do
    if open.id == id then
      return open, index
    end
  end
end

local function has_open(text)
  return text and string.find(text, ':', 1, true)
end
