-- Packs a hint: its kind, then each part as a netstring (the length in bytes, ':', the bytes). Netstrings need no
-- escapes, so the parts are copied unread.
local function hint(kind, parts)
  local packed = {kind}
  for i = 1, #parts do
    packed[i + 1] = #parts[i] .. ':' .. parts[i]
  end
  return table.concat(packed)
end

-- From this size on a hint has only names, because each published byte fills every subscriber's output buffer.
local LARGE = 65536
