-- Returns whether a message belongs to a conversation, by the start of its value (`message_value.lua`).
local function is_of(id, name)
  local start = #name .. ':' .. name
  return call('GETRANGE', partition .. 'm:' .. id, 0, #start - 1) == start
end
