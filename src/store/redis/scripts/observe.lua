-- Notes a replica that is to be hinted at new entries of a conversation, in the field `x` of its hash, and hints the
-- owner at it. A note that still holds for `least` is left as it is: who reads often writes little. `had` is what the
-- hash has: `x`, record, positions. Where it has neither of the last two nobody knows the conversation, and the note
-- must not outlive its time; where it has one, the hash goes when it would have gone without the note.
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
  if owner and owner ~= '' and owner ~= observer then
    call('PUBLISH', channel(owner), hint('O', {string.match(key, '{p%d+}:c:(.*)$'), observer}))
  end
end
