-- A hint: its kind, then each part as a netstring (the length in bytes, ':', the bytes). Nothing is escaped, so
-- that what is passed on is moved and not read.
local function hint(kind, parts)
  local packed = {kind}
  for i = 1, #parts do
    packed[i + 1] = #parts[i] .. ':' .. parts[i]
  end
  return table.concat(packed)
end

-- From this many bytes on only names are sent: what is published costs each subscriber's output buffer.
local LARGE = 65536
