-- Carries out an owner's write: the changes, message by message, and the record after them.
--
-- KEYS  1 lease  2 activity  3 warm  4 conversation  5 journal
-- Answers OK lost cache | OUTOFSTEP
--
-- ARGV[8] is the weight of all entries, ARGV[9] the lifetime of a journal. Groups of changes start at ARGV[CHANGES].
-- A group has the id of a message or '', its times of sent, acknowledged and first reply ('' for no news), and the number
-- of changes. Each change has a kind and two values:
--   r  a reply to the group's message                                       place, text
--   e  the end of the group's message, its last change                      place, text
--   u  another session's message                                            place, text
--   p  another event of the platform                                        place, text
--   h  the head was not sent, and its deadline starts anew                  at, ''
--   d  a delivery of the entry before it, skipped with it; it counts twice  id, `QUEUE SINCE`; target, fields, data
-- All but the last two are journal entries. Their text is `AT WEIGHT BODY`, and it is stored unchanged.
local owner, write, follows, record = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local warm_until, message_ttl, weight, journal_ttl = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local CHANGES = 10
local name = string.sub(KEYS[4], #partition + 3)

local held = call('HMGET', KEYS[4], 's', 'x')
local state = read_state(held[1])
local last = state.write == '' and '0' or state.write
if last ~= follows then
  local done, told = string.match(last, '^(%d+)(!?)$')
  if done == write then
    -- This repeat changes nothing. It gives a WAIT behind it a write to wait for.
    call('HSET', KEYS[4], 's', held[1])
    return {'OK', now, told == '!' and 1 or 0, {}}
  elseif done ~= follows then
    return {'OUTOFSTEP', now}
  end
end
local lost, counted, appended, ends = false, tonumber(state.weight), {}, {}

-- The places that a message needs, by its id. Each message is taken apart once.
local needed = {}
local function needed_of(id)
  if not needed[id] then
    local value, parts = message_of(name, id)
    needed[id] = {}
    if value then
      local open = find_open(state, id)
      local places = open and open.replies or string.match(parts[3], '^[%d,]* ([%d+]*)') or ''
      for place in string.gmatch(places, '%d+') do
        needed[id][place] = true
      end
      for i = 4, #parts do
        needed[id][string.match(parts[i], '^%d+$') or ''] = true
      end
    end
  end
  return needed[id]
end

-- Takes entries out of the journal, oldest first. Replies that a message still needs move to the message.
local function take_out(entries)
  for _, entry in ipairs(entries) do
    local place = string.match(entry, '^(%d+) r ')
    -- A plain search: a pattern would try each byte of a long reply.
    local found = place and string.find(entry, '"i":"', 1, true)
    local id = found and string.match(entry, '^(%w+)"', found + 5)
    if id and needed_of(id)[place] then
      call('APPEND', partition .. 'm:' .. id, netstring(place .. ' ' .. string.sub(entry, #place + 4)))
      local open = find_open(state, id)
      if open then
        open.moved = '+'
      end
    end
  end
end

local at = CHANGES
while ARGV[at] do
  local id, sent, acked, answered = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local first, after = at + 5, at + 5 + 3 * ARGV[at + 4]
  at = after
  local open, index, value, parts
  if id ~= '' then
    value, parts = message_of(name, id)
    open, index = find_open(state, id)
    if sent ~= '' and not (open and value) then
      lost = true
    end
    -- The first sign of a kind counts, and no sign counts after the end.
    if open then
      local s, k, f = string.match(open.signs, '^(%d*),(%d*),(%d*)$')
      open.signs = (s == '' and sent or s) .. ',' .. (k == '' and acked or k) .. ',' .. (f == '' and answered or f)
    end
  end

  local change, left_out = first, false
  while change < after do
    local kind, place, text = ARGV[change], ARGV[change + 1], ARGV[change + 2]
    local for_journal = true
    change = change + 3
    if kind == 'e' then
      if open then
        -- The next message is the head since this end.
        table.remove(state.lane, index)
        if #state.lane == 0 then
          state.since = ''
        elseif index == 1 then
          state.since = string.match(text, '^%d+')
        end
        if open.digest ~= '' then
          call('PEXPIRE', partition .. 'k:' .. open.digest, message_ttl)
        end
      end
      if open and value then
        local ended = {netstring(name), netstring(parts[2]), netstring(open.signs .. ' ' .. open.replies .. ' ' .. text)}
        for i = 4, #parts do
          ended[i] = netstring(parts[i])
        end
        call('SET', partition .. 'm:' .. id, table.concat(ended), 'PX', message_ttl)
        -- Mostly no caller waits, or one at the owner itself.
        if open.watchers ~= '' and open.watchers ~= owner then
          ends[#ends + 1] = open
        end
      else
        lost, left_out, for_journal = true, true, false
        weight = weight - string.match(text, '^%d+ (%d+)')
      end
    elseif kind == 'h' then
      for_journal = false
      if #state.lane > 0 then
        state.since = place
        state.lane[1].signs = string.gsub(state.lane[1].signs, '^%d+', '')
      end
    elseif kind == 'r' and open then
      open.replies = open.replies == '' and place or open.replies .. '+' .. place
    elseif kind == 'r' and value then
      call('APPEND', partition .. 'm:' .. id, netstring(place))
    elseif kind == 'd' then
      for_journal = false
      local delivery = partition .. 'd:' .. place
      -- The owner writes lost changes again under their id. This delivery may have survived.
      if not left_out and call('EXISTS', delivery) == 0 then
        call('HSET', delivery, 'c', name, 't', ARGV[change], 'n', ARGV[change + 1], 'b', ARGV[change + 2],
          's', 'pending ' .. text .. ' 0 0 ')
        call('ZADD', partition .. 'x:pending', 0, place .. ' ' .. name)
        local queue = string.sub(text, 1, 32)
        if call('RPUSH', partition .. 'o:' .. queue, place) == 1 then
          call('ZADD', partition .. 'due', string.format('%d', now), queue)
        end
      end
      change = change + 3
    end
    if for_journal then
      left_out = false
      appended[#appended + 1] = place .. ' ' .. kind .. ' ' .. text
    end
  end
end

if #appended > 0 then
  local before = call('LLEN', KEYS[5])
  local newest = before > 0 and place_of(call('LINDEX', KEYS[5], -1)) or 0
  if before > 0 and (not counted or newest >= place_of(appended[1])) then
    -- The journal is from before the conversation was lost, and a new one begins.
    take_out(call('LRANGE', KEYS[5], 0, -1))
    call('DEL', KEYS[5])
    counted, before = 0, 0
  elseif counted and counted % ENTRY ~= before or before == 0 then
    -- A store that evicts against our advice may have lost the list.
    counted = 0
    for _, entry in ipairs(call('LRANGE', KEYS[5], 0, -1)) do
      counted = counted + ENTRY * string.match(entry, '^%d+ %a %d+ (%d+)') + 1
    end
  end
  -- Lua passes some thousands of arguments at most.
  for from = 1, #appended, 1000 do
    call('RPUSH', KEYS[5], unpack(appended, from, math.min(from + 999, #appended)))
  end
  counted = counted + weight * ENTRY + #appended
  -- The weights are in the old entries, so these are read before they go. The newest entry always stays.
  local gone = 0
  while counted % ENTRY > 1 and (counted % ENTRY > MAX_ENTRIES or counted > MAX_BYTES * ENTRY) do
    local step = math.max(counted % ENTRY - MAX_ENTRIES, 1)
    local old = call('LRANGE', KEYS[5], gone, gone + step - 1)
    if #old == 0 then
      break
    end
    take_out(old)
    for _, entry in ipairs(old) do
      counted = counted - ENTRY * string.match(entry, '^%d+ %a %d+ (%d+)') - 1
    end
    gone = gone + #old
  end
  if gone > 0 then
    call('LTRIM', KEYS[5], gone, -1)
  end
  state.weight = string.format('%d', counted)
end
state.write = lost and write .. '!' or write
call('HSET', KEYS[4], 'v', VERSION, 'r', record, 's', format_state(state))
if #state.lane == 0 then
  rest(name, journal_ttl)
elseif #appended > 0 then
  call('PERSIST', KEYS[5])
end
for _, ended in ipairs(ends) do
  local parts = read_message(name, ended.id, '')
  table.insert(parts, 1, name)
  table.insert(parts, 2, ended.id)
  local payload = hint('E', parts)
  if #payload >= LARGE then
    payload = hint('L', {name, ended.id})
  end
  for watcher in string.gmatch(ended.watchers, '%x+') do
    if watcher ~= owner then
      call('PUBLISH', channel(watcher), payload)
    end
  end
end
-- This is the longest lifetime of a member. The key expires if no owner removes members.
if warm_until ~= '' then
  call('ZADD', KEYS[3], warm_until, name)
  call('PEXPIRE', KEYS[3], JOURNAL_TTL)
end
-- Gives the observers a hint. The owner needs none.
if #appended > 0 and held[2] then
  for observer, till in string.gmatch(held[2], '(%x+):(%d+)') do
    if observer ~= owner and now < tonumber(till) then
      call('PUBLISH', channel(observer), hint('J', {name}))
    end
  end
end
return {'OK', now, lost and 1 or 0, lost and {} or cached(name)}
