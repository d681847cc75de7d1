-- Returns a message with its progress, and notes a watcher of its end.
--
-- KEYS  1 lease  2 message
-- Answers OK message known version; `message` is empty if this conversation has none such. `known` is the version of the
-- conversation before the note of the watcher, and `version` the one after it. Both are empty without a new note.
local name, watcher = ARGV[1], ARGV[2]

local message, known = read_message(name, string.sub(KEYS[2], -26), watcher)
return {'OK', now, message, known or '', known and VERSION or ''}
