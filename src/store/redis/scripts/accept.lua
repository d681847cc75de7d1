-- Accepts a message: idempotency, lane, clientMessageId and position.
--
-- KEYS  1 lease  2 activity  3 conversation  4 message  5 idempotency key, if there is one
--
-- Answers NEW or SENT position clientMessageId acceptedAt known version | REPLAYED id message known version | MISMATCH |
-- LANE open | FULL. `known` is the version of the conversation before, `version` the one after. Both are empty if the
-- conversation stays as it is.
local name, body, max_open, full = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local by, watched, send_at_accept = ARGV[5], ARGV[6] == '1', ARGV[7]
-- A key that finds open messages only is free again once its message has ended.
local digest, body_digest, open_only = ARGV[8], ARGV[9], ARGV[10] == '1'
local id = string.sub(KEYS[4], -26)

local lease = call('HMGET', KEYS[1], 'o', 'e')
local owner = lease[1]
-- Whether the owner itself accepts the message and may send it at its accept (ADR 22).
local owned = send_at_accept ~= '' and owner == by and lease[2] == send_at_accept

-- A known id is a repeat by the same replica, which does not know whether the first request arrived.
local first = call('GET', KEYS[4])
if first then
  local parts = parts_of(first)
  if parts[1] ~= name then
    return {'MISMATCH', now}
  end
  -- This changes nothing. It gives a WAIT behind it a write to wait for: the first request reached the replicas.
  call('SET', KEYS[4], first, 'KEEPTTL')
  local open = find_open(read_state(call('HGET', KEYS[3], 's')), id)
  local position, client_message_id, accepted_at = string.match(parts[2], '^(%d+) (%d+) (%d+) ')
  local sent = owned and string.match(open and open.signs or parts[3], '^%d')
  return {sent and 'SENT' or 'NEW', now, position, client_message_id, accepted_at, '', ''}
end

if digest then
  local held = call('GET', KEYS[5])
  if held then
    local earlier, fits = string.sub(held, 1, 26), string.sub(held, 27) == body_digest
    local message, known = read_message(name, earlier, fits and watched and by or '')
    if #message > 0 and not (open_only and message[2] == '') then
      if not fits then
        return {'MISMATCH', now}
      end
      call('SET', KEYS[5], held, 'KEEPTTL')
      return {'REPLAYED', now, earlier, message, known or '', known and VERSION or ''}
    end
  end
end

local held = call('HMGET', KEYS[3], 's', 'v')
local state = read_state(held[1])
local lane = state.lane
if #lane >= tonumber(max_open) then
  return {'LANE', now, #lane}
end
if full then
  return {'FULL', now}
end

-- The text is formatted once, because Lua would format a number at each concatenation.
local at = string.format('%d', now)
local position, client_message_id = state.next == '' and '0' or state.next, at
if state.last ~= '' and now <= tonumber(state.last) then
  client_message_id = string.format('%d', state.last + 1)
end
local sent = owned and #lane == 0
if #lane == 0 then
  state.since = at
  activate(name)
end
lane[#lane + 1] = {
  id = id, signs = sent and at .. ',,' or ',,', digest = digest or '', watchers = watched and by or '',
  replies = '', moved = '',
}
state.next, state.last = string.format('%d', position + 1), client_message_id
local accepted = position .. ' ' .. client_message_id .. ' ' .. at .. ' ' .. body
call('SET', KEYS[4], netstring(name) .. netstring(accepted) .. '0:')
if digest then
  call('SET', KEYS[5], id .. body_digest)
end
call('HSET', KEYS[3], 'v', VERSION, 's', format_state(state))
local known = held[2] or ''

if owner and owner ~= '' and owner ~= by then
  if #accepted < LARGE then
    call('PUBLISH', channel(owner), hint('A', {name, id, accepted, known, VERSION, watched and by or '', digest or ''}))
  else
    call('PUBLISH', channel(owner), hint('W', {name}))
  end
end
return {sent and 'SENT' or 'NEW', now, position, client_message_id, at, known, VERSION}
