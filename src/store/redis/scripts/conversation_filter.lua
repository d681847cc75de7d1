-- Returns whether a conversation passes the filter of a list. Bots are ` BOT BOT `. An empty argument fits all.
local function passes(name, bots, user, prefix)
  local bot, identity = string.match(name, '^([^/]*)/(.*)$')
  return (bots == '' or string.find(bots, ' ' .. bot .. ' ', 1, true))
    and (user == '' or identity == user)
    and string.sub(identity, 1, #prefix) == prefix
end
