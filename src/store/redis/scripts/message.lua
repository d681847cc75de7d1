-- Returns a message with its progress, and notes a watcher of its end.
--
-- KEYS  1 message
-- Answers OK fields; empty if this conversation has no such message
local name, watcher = ARGV[1], ARGV[2]

local fields = message_fields(KEYS[1], string.match(KEYS[1], '^(.*)m:') .. 'j:' .. name)
for i = 1, #fields, 2 do
  if fields[i] == 'c' and fields[i + 1] == name then
    if watcher ~= '' then
      watch(KEYS[1], fields, watcher, name)
    end
    return {'OK', now, fields}
  end
end
return {'OK', now, {}}
