-- Returns a page of a journal, and notes an observer of later entries.
--
-- KEYS  1 lease  2 conversation  3 journal
-- Answers OK record more stood {place kind text fields} ..
-- `stood` is the time of the entry at the reader's place, or of the newest entry if no place is given. It is empty if
-- that entry is not stored. `fields` are those of the message that the entry ends, empty if it has expired.
local after, limit, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local observer, least, span = ARGV[4], ARGV[5], ARGV[6]
local partition = string.sub(KEYS[1], 1, -6)
local name = string.sub(KEYS[2], #partition + 3)

local had = call('HMGET', KEYS[2], 'x', 'r', 'n')
if observer ~= '' then
  observe(KEYS[2], had, observer, least, span)
end
local answer = {'OK', now, had[2] or '', 0, ''}
-- A journal without a record is from before the conversation was lost. The next write drops it.
if not had[2] then
  return answer
end

local function stood(entry)
  return string.match(entry[2][2], '^%d+')
end
if limit == 0 then
  local newest = call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
  answer[5] = newest and stood(newest) or ''
  return answer
end

local entries = call('XRANGE', KEYS[3], after, '+', 'COUNT', limit + 2)
if entries[1] and entries[1][1] == after .. '-0' then
  answer[5] = stood(table.remove(entries, 1))
end
local bytes = 0
for i, entry in ipairs(entries) do
  if i > limit then
    answer[4] = 1
    break
  end
  local kind, text, fields = entry[2][1], entry[2][2], {}
  bytes = bytes + #text
  if kind == 'e' then
    local id = cjson.decode(string.match(text, '^%d+ %d+ (.*)$')).m
    fields = call('HGETALL', partition .. 'm:' .. id)
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
  answer[#answer + 1] = {entry[1], kind, text, fields}
end
return answer
