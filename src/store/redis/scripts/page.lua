-- Returns a page of a journal, and notes an observer of later entries.
--
-- KEYS  1 lease  2 conversation  3 journal
-- Answers OK record more stood {entry fields} ..
-- `stood` is the time of the entry at the reader's place, or of the newest entry if no place is given. It is empty if
-- that entry is not stored. `fields` are those of the message that the entry ends, empty if it has expired.
local after, limit, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local observer, least, span = ARGV[4], ARGV[5], ARGV[6]
local partition = string.sub(KEYS[1], 1, -6)
local name = string.sub(KEYS[2], #partition + 3)

local had = call('HMGET', KEYS[2], 'x', 'r', 'n', 'b')
if observer ~= '' then
  observe(KEYS[2], had, observer, least, span)
end
local answer = {'OK', now, had[2] or '', 0, ''}
-- Without a record, or without a weight, the journal is that of a conversation that the store has forgotten. The next
-- entry drops it.
if not had[2] or not had[4] then
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

local from = find_place(KEYS[3], after)
local entries = call('LRANGE', KEYS[3], from, from + limit + 1)
if entries[1] and place_of(entries[1]) == after then
  answer[5] = stood(table.remove(entries, 1))
end
local bytes = 0
for i, entry in ipairs(entries) do
  if i > limit then
    answer[4] = 1
    break
  end
  local fields = {}
  bytes = bytes + #entry
  local ended = string.match(entry, '^%d+ e %d+ %d+ (.*)$')
  if ended then
    fields = message_fields(partition .. 'm:' .. cjson.decode(ended).m, KEYS[3])
    local ours = false
    for f = 1, #fields, 2 do
      ours = ours or fields[f] == 'c' and fields[f + 1] == name
      bytes = bytes + #fields[f + 1]
    end
    fields = ours and fields or {}
  end
  if i > 1 and bytes > max_bytes then
    answer[4] = 1
    break
  end
  answer[#answer + 1] = {entry, fields}
end
return answer
