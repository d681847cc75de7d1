-- Carries out an owner's write: a list of changes and the record after them.
--
-- KEYS  1 lease  2 ready  3 warm  4 conversation  5 journal
-- Answers OK lost | OUTOFSTEP
--
-- A change is four arguments: kind, message or '', and two more:
--   s k f  sent, acknowledged, answering    at, ''
--   h      the head's time begins anew      at, ''
--   r u p  a reply, another session's message, another event of the platform, for the journal
--   e      an end                           place, text
-- The text of an entry is `AT WEIGHT BODY`. It is kept as it is in the journal, and with its message where it has one.
local owner, write, follows, record = ARGV[2], ARGV[4], ARGV[5], ARGV[6]
local warm_until, message_ttl = ARGV[7], ARGV[8]
local CHANGES = 9
-- `PREFIX:{pN}:`, which the names of all of the partition's keys begin with.
local partition = string.sub(KEYS[1], 1, -6)
local name = string.sub(KEYS[4], #partition + 3)

local held = call('HMGET', KEYS[4], 'w', 'l', 'b', 'x')
local last = held[1] or '0'
if last ~= follows then
  local done, told = string.match(last, '^(%d+)(!?)$')
  if done == write then
    -- A repeat. This changes nothing, but gives a WAIT behind it something to wait for.
    call('HSET', KEYS[4], 'w', last)
    return {'OK', now, told == '!' and 1 or 0}
  elseif done ~= follows then
    return {'OUTOFSTEP', now}
  end
end
local lane, lost = held[2] or '', false
local counted, journal_bytes, journal_length = held[3], 0, 0
local appended = false

-- Each message that is touched is read once and written once.
local messages, touched = {}, {}
local function message(id)
  local it = messages[id]
  if not it then
    local key = partition .. 'm:' .. id
    local had = call('HMGET', key, 'c', 'o', 'p', 'w', 'd')
    local sent, acked, first = '', '', ''
    if had[3] then
      sent, acked, first = string.match(had[3], '^(%d*),(%d*),(%d*)$')
    end
    it = {
      key = key, ours = had[1] == name, ended = had[2], watchers = had[4], digest = had[5],
      s = sent, k = acked, f = first, fields = {},
    }
    messages[id], touched[#touched + 1] = it, it
  end
  return it
end

local function put(it, field, value)
  local fields = it.fields
  local count = #fields
  fields[count + 1], fields[count + 2] = field, value
  -- Lua hands over some thousands of arguments at most.
  if count >= 1000 then
    call('HSET', it.key, unpack(fields))
    it.fields = {}
  end
end

-- The first sign of a kind counts, and none after the end.
local function sign(it, kind, at)
  if not it.ours or it.ended then
    return false
  end
  if it[kind] == '' then
    it[kind], it.signed = at, true
  end
  return true
end

local function append(kind, place, text)
  if counted and not appended then
    local bytes, length = string.match(counted, '^(%d+) (%d+)$')
    journal_bytes, journal_length = tonumber(bytes), tonumber(length)
  end
  local added = counted and redis.pcall('XADD', KEYS[5], 'NOMKSTREAM', place .. '-0', kind, text)
  if type(added) ~= 'string' then
    -- The journal begins: it never was, it has expired, or it is from before the conversation was lost, and then
    -- its places may be after this one.
    call('DEL', KEYS[5])
    call('XADD', KEYS[5], place .. '-0', kind, text)
    counted, journal_bytes, journal_length = true, 0, 0
  end
  appended = true
  journal_length = journal_length + 1
  journal_bytes = journal_bytes + string.match(text, '^%d+ (%d+)')
end

-- Takes a message out of the lane, `SINCE ID ID ..`; the next head is one since its end.
local function dequeue(id, text)
  local from, to = string.find(lane, ' ' .. id, 1, true)
  if not from then
    return false
  end
  local ahead, behind = string.sub(lane, 1, from - 1), string.sub(lane, to + 1)
  if string.find(ahead, ' ', 1, true) then
    lane = ahead .. behind
  elseif behind ~= '' then
    lane = string.match(text, '^%d+') .. behind
  else
    lane = ''
  end
  return true
end

for i = CHANGES, #ARGV, 4 do
  local kind, id, a, b = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 's' then
    lost = not sign(message(id), kind, a) or lost
  elseif kind == 'k' or kind == 'f' then
    sign(message(id), kind, a)
  elseif kind == 'h' then
    if lane ~= '' then
      lane = a .. string.match(lane, ' .*')
    end
  elseif kind == 'e' then
    local it = message(id)
    local queued = dequeue(id, b)
    if queued and it.ours and not it.ended then
      put(it, 'o', b)
      it.ended, it.ends = b, true
      append(kind, a, b)
    else
      lost = true
    end
  else
    if id ~= '' then
      local it = message(id)
      -- Not where it has expired: that would bring back a piece of it, and for ever.
      if it.ours then
        sign(it, 'f', string.match(b, '^%d+'))
        put(it, 'r' .. a, b)
      end
    end
    append(kind, a, b)
  end
end

for _, it in ipairs(touched) do
  if it.signed then
    put(it, 'p', it.s .. ',' .. it.k .. ',' .. it.f)
  end
  if #it.fields > 0 then
    call('HSET', it.key, unpack(it.fields))
  end
  if it.ends then
    call('PEXPIRE', it.key, message_ttl)
    if it.digest then
      call('PEXPIRE', partition .. 'k:' .. it.digest, message_ttl)
    end
    local payload
    -- Mostly nobody waits, or somebody at the owner itself.
    local watchers = it.watchers ~= owner and it.watchers or ''
    for watcher in string.gmatch(watchers, '%x+') do
      if watcher ~= owner then
        if not payload then
          local parts = call('HGETALL', it.key)
          local id = string.sub(it.key, -26)
          table.insert(parts, 1, name)
          table.insert(parts, 2, id)
          payload = hint('E', parts)
          if #payload >= LARGE then
            payload = hint('L', {name, id})
          end
        end
        call('PUBLISH', channel(watcher), payload)
      end
    end
  end
end

local conversation = {'r', record, 'w', write .. (lost and '!' or '')}
if lane ~= (held[2] or '') then
  conversation[#conversation + 1] = 'l'
  conversation[#conversation + 1] = lane
end
if appended then
  -- The weights of what goes are with it, so it is read before. The newest always stays.
  local from, gone = '-', nil
  while journal_length > 1 and (journal_length > MAX_ENTRIES or journal_bytes > MAX_BYTES) do
    local old = call('XRANGE', KEYS[5], from, '+', 'COUNT', math.max(journal_length - MAX_ENTRIES, 1))
    if #old == 0 then
      break
    end
    for _, entry in ipairs(old) do
      gone = entry[1]
      journal_length = journal_length - 1
      journal_bytes = journal_bytes - string.match(entry[2][2], '^%d+ (%d+)')
    end
    from = '(' .. gone
  end
  if gone then
    call('XTRIM', KEYS[5], 'MINID', string.match(gone, '^%d+') + 1 .. '-0')
  end
  call('PEXPIRE', KEYS[5], JOURNAL_TTL)
  conversation[#conversation + 1] = 'b'
  conversation[#conversation + 1] = journal_bytes .. ' ' .. journal_length
end
call('HSET', KEYS[4], unpack(conversation))
if lane == '' then
  if held[2] and held[2] ~= '' then
    call('SREM', KEYS[2], name)
  end
  call('PEXPIRE', KEYS[4], JOURNAL_TTL)
end
-- No member is to stay longer than this; it expires where nobody is left to take them out.
if warm_until ~= '' and call('ZADD', KEYS[3], 'CH', warm_until, name) == 1 then
  call('PEXPIRE', KEYS[3], JOURNAL_TTL)
end
-- Who observes it; the owner knows by itself.
if appended and held[4] then
  for observer, till in string.gmatch(held[4], '(%x+):(%d+)') do
    if observer ~= owner and now < tonumber(till) then
      call('PUBLISH', channel(observer), hint('J', {name}))
    end
  end
end
return {'OK', now, lost and 1 or 0}
