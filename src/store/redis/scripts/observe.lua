-- Notes an observer in the field `x` of a conversation's hash, and gives the owner a hint. A note that holds for
-- `least` or longer stays, so frequent reads write little. `had` holds the fields `x`, record and state. If the
-- last two are missing, the conversation is unknown, and the hash expires with the note. Otherwise the note does not
-- change its expiry.
local function observe(key, had, observer, least, span)
  local notes = {}
  for who, till in string.gmatch(had[1] or '', '(%x+):(%d+)') do
    if who == observer and till - now >= tonumber(least) then
      return
    elseif who ~= observer and now < tonumber(till) then
      notes[#notes + 1] = who .. ':' .. till
    end
  end
  notes[#notes + 1] = observer .. ':' .. string.format('%d', now + span)
  call('HSET', key, 'x', table.concat(notes, ' '))
  if not had[2] and not had[3] then
    call('PEXPIRE', key, span)
  end
  local owner = call('HGET', KEYS[1], 'o')
  if owner == observer then
    return
  end
  -- The owner must know of observers elsewhere before it writes.
  call('HSET', key, 'v', VERSION)
  if owner and owner ~= '' then
    call('PUBLISH', channel(owner), hint('O', {string.match(key, '{p%d+}:c:(.*)$'), observer}))
  end
end
