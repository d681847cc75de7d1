-- Returns a page of a journal, and notes an observer of later entries.
--
-- KEYS  1 lease  2 conversation  3 journal
-- Answers OK record more stood {entry message} ..
-- `more` is 1 if others follow, else 0.
-- `stood` is the time of the entry at the reader's place, or of the newest entry if no place is given. It is empty if
-- that entry is not stored. `message` is the one that the entry ends, empty if it has expired.
local after, limit, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local observer, least, span = ARGV[4], ARGV[5], ARGV[6]
local name = string.sub(KEYS[2], #partition + 3)

local had = call('HMGET', KEYS[2], 'x', 'r', 's')
if observer ~= '' then
  observe(KEYS[2], had, observer, least, span)
end
local answer = {'OK', now, had[2] or '', 0, ''}
-- Without a record, or without a weight, the journal is that of a conversation that the store has forgotten. The next
-- entry drops it.
if not had[2] or not string.match(had[3] or '', '^%S* %S* %S* %d') then
  return answer
end

local function stood(entry)
  return string.match(entry, '^%d+ %a (%d+)')
end
if limit == 0 then
  local newest = call('LINDEX', KEYS[3], -1)
  answer[5] = newest and stood(newest) or ''
  return answer
end

-- Readers see the newest entries only. Owners take out older ones a hundred at a time.
local from = math.max(find_place(KEYS[3], after), call('LLEN', KEYS[3]) - MAX_ENTRIES)
-- Long entries fill a page soon, so the first batches are small.
local batch, bytes, count = 8, 0, 0
repeat
  local entries = call('LRANGE', KEYS[3], from, from + math.min(batch, limit - count + 2) - 1)
  from, batch = from + #entries, math.min(batch * 2, 256)
  local rest = #entries > 0
  if count == 0 and rest and place_of(entries[1]) == after then
    answer[5] = stood(table.remove(entries, 1))
  end
  for _, entry in ipairs(entries) do
    local message = {}
    bytes = bytes + #entry
    local ended = string.match(entry, '^%d+ e %d+ %d+ (.*)$')
    if ended then
      message = read_message(name, cjson.decode(ended).m, '')
      for _, part in ipairs(message) do
        bytes = bytes + #part
      end
    end
    if count == limit or count > 0 and bytes > max_bytes then
      answer[4] = 1
      return answer
    end
    count = count + 1
    answer[#answer + 1] = {entry, message}
  end
until not rest
return answer
