-- Carries out an owner's write: the changes, message by message, and the record after them.
--
-- KEYS  1 lease  2 activity  3 warm  4 conversation  5 journal
-- Answers OK lost cache | OUTOFSTEP
--
-- ARGV[8] is the weight of all entries, ARGV[9] the lifetime of a journal. Groups of changes start at ARGV[CHANGES].
-- A group has the id of a message or
-- '', its times of sent, acknowledged and first reply ('' for no news), and the number of changes. Each change has a
-- kind and two values:
--   r  a reply to the group's message                                       place, text
--   e  the end of the group's message, its last change                      place, text
--   u  another session's message                                            place, text
--   p  another event of the platform                                        place, text
--   h  a new start of the head's deadline                                   at, ''
--   d  a delivery of the entry before it, skipped with it; it counts twice  id, `QUEUE SINCE`; target, fields, data
-- All but the last two are journal entries. Their text is `AT WEIGHT BODY`, and it is stored unchanged.
local owner, write, follows, record = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local warm_until, message_ttl, weight, journal_ttl = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local CHANGES = 10
local name = string.sub(KEYS[4], #partition + 3)

local held = call('HMGET', KEYS[4], 'w', 'l', 'b', 'x')
local last = held[1] or '0'
if last ~= follows then
  local done, told = string.match(last, '^(%d+)(!?)$')
  if done == write then
    -- This repeat changes nothing. It gives a WAIT behind it a write to wait for.
    call('HSET', KEYS[4], 'w', last)
    return {'OK', now, told == '!' and 1 or 0, {}}
  elseif done ~= follows then
    return {'OUTOFSTEP', now}
  end
end
local lane, lost = held[2] or '', false
local counted, appended, ends = held[3], {}, {}

-- Takes entries out of the journal, oldest first. Replies that a message still needs move to the message.
local function take_out(entries)
  for _, entry in ipairs(entries) do
    local place, body = string.match(entry, '^(%d+) r (.*)$')
    local id = place and string.match(body, '"i":"(%w+)"')
    local key = id and partition .. 'm:' .. id
    if key and call('HGET', key, 'r' .. place) == '' then
      call('HSET', key, 'r' .. place, body)
    end
  end
end

local at = CHANGES
while ARGV[at] do
  local id, sent, acked, answered = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local first, after = at + 5, at + 5 + 3 * ARGV[at + 4]
  at = after
  local key, message, ours, open, ended
  -- The table has room for the signs, a reply and the end, so it need not grow.
  local fields, count = {nil, nil, nil, nil, nil, nil}, 0
  if id ~= '' then
    key = partition .. 'm:' .. id
    message = call('HMGET', key, 'c', 'o', 'p', 'w', 'd')
    ours = message[1] == name
    open = ours and not message[2]
    if sent ~= '' and not open then
      lost = true
    end
    -- The first sign of a kind counts, and no sign counts after the end.
    if open then
      local s, k, f = string.match(message[3] or ',,', '^(%d*),(%d*),(%d*)$')
      count, fields[1], fields[2] = 2, 'p', (s == '' and sent or s) .. ',' .. (k == '' and acked or k) .. ',' .. (f == '' and answered or f)
    end
  end

  local change, left_out = first, false
  while change < after do
    local kind, place, text = ARGV[change], ARGV[change + 1], ARGV[change + 2]
    local for_journal = true
    change = change + 3
    if kind == 'e' then
      -- Removes the message from the lane, `SINCE ID ID ..`. The next message is the head since this end.
      local from, to = string.find(lane, ' ' .. id, 1, true)
      if from then
        local ahead, behind = string.sub(lane, 1, from - 1), string.sub(lane, to + 1)
        if string.find(ahead, ' ', 1, true) then
          lane = ahead .. behind
        elseif behind ~= '' then
          lane = string.match(text, '^%d+') .. behind
        else
          lane = ''
        end
      end
      ended = from and open
      if ended then
        fields[count + 1], fields[count + 2] = 'o', text
        count = count + 2
      else
        lost, left_out, for_journal = true, true, false
        weight = weight - string.match(text, '^%d+ (%d+)')
      end
    elseif kind == 'h' then
      for_journal = false
      if lane ~= '' then
        lane = place .. string.match(lane, ' .*')
      end
    elseif kind == 'r' and ours then
      -- An expired message must not come back with this reply alone, without an expiry.
      fields[count + 1], fields[count + 2] = 'r' .. place, ''
      count = count + 2
      -- Lua passes some thousands of arguments at most.
      if count > 1000 then
        call('HSET', key, unpack(fields, 1, count))
        count = 0
      end
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

  if count > 0 then
    call('HSET', key, unpack(fields, 1, count))
  end
  if ended then
    call('PEXPIRE', key, message_ttl)
    if message[5] then
      call('PEXPIRE', partition .. 'k:' .. message[5], message_ttl)
    end
    -- Mostly no caller waits, or one at the owner itself.
    if message[4] and message[4] ~= owner then
      ends[#ends + 1] = {id, message[4]}
    end
  end
end

local number = lost and write .. '!' or write
if #appended > 0 then
  local before = call('LLEN', KEYS[5])
  local last = before > 0 and place_of(call('LINDEX', KEYS[5], -1)) or 0
  if before > 0 and (not counted or last >= place_of(appended[1])) then
    -- The journal is from before the conversation was lost, and a new one begins.
    take_out(call('LRANGE', KEYS[5], 0, -1))
    call('DEL', KEYS[5])
    counted, before = 0, 0
  elseif before == 0 then
    counted = 0
  end
  -- Lua passes some thousands of arguments at most.
  for first = 1, #appended, 1000 do
    call('RPUSH', KEYS[5], unpack(appended, first, math.min(first + 999, #appended)))
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
  call('HSET', KEYS[4], 'v', VERSION, 'r', record, 'w', number, 'l', lane, 'b', string.format('%d', counted))
else
  call('HSET', KEYS[4], 'v', VERSION, 'r', record, 'w', number, 'l', lane)
end
if lane == '' then
  rest(name, journal_ttl)
elseif #appended > 0 then
  call('PERSIST', KEYS[5])
end
for _, told in ipairs(ends) do
  local id, watchers = told[1], told[2]
  local parts = message_fields(partition .. 'm:' .. id, KEYS[5])
  table.insert(parts, 1, name)
  table.insert(parts, 2, id)
  local payload = hint('E', parts)
  if #payload >= LARGE then
    payload = hint('L', {name, id})
  end
  for watcher in string.gmatch(watchers, '%x+') do
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
if #appended > 0 and held[4] then
  for observer, till in string.gmatch(held[4], '(%x+):(%d+)') do
    if observer ~= owner and now < tonumber(till) then
      call('PUBLISH', channel(observer), hint('J', {name}))
    end
  end
end
return {'OK', now, lost and 1 or 0, lost and {} or cached(name)}
