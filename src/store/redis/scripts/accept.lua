-- Accepts a message: idempotency, lane, clientMessageId and position.
--
-- KEYS  1 lease  2 activity  3 conversation  4 message  5 idempotency key, if there is one
--
-- Answers NEW or SENT position clientMessageId acceptedAt | REPLAYED id fields | MISMATCH | LANE open | FULL
local name, body, max_open, full = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local by, watched, send_at_accept = ARGV[5], ARGV[6] == '1', ARGV[7]
local digest, body_digest = ARGV[8], ARGV[9]
local id = string.sub(KEYS[4], -26)

local lease = call('HMGET', KEYS[1], 'o', 'e')
local owner = lease[1]
-- Whether the owner itself accepts the message and may send it at its accept (ADR 22).
local owned = send_at_accept ~= '' and owner == by and lease[2] == send_at_accept

-- A known id is a repeat by the same replica, which does not know whether the first request arrived.
local of = call('HGET', KEYS[4], 'c')
if of then
  if of ~= name then
    return {'MISMATCH', now}
  end
  -- This changes nothing. It gives a WAIT behind it a write to wait for: the first request reached the replicas.
  call('HSET', KEYS[4], 'c', name)
  local first = call('HMGET', KEYS[4], 'a', 'p')
  local position, client_message_id, accepted_at = string.match(first[1], '^(%d+) (%d+) (%d+) ')
  return {owned and string.match(first[2], '^%d') and 'SENT' or 'NEW', now, position, client_message_id, accepted_at}
end

if digest then
  local held = call('GET', KEYS[5])
  if held then
    local earlier = string.sub(held, 1, 26)
    local key = string.sub(KEYS[4], 1, -27) .. earlier
    local fields = message_fields(key, partition .. 'j:' .. name)
    if #fields > 0 then
      if string.sub(held, 27) ~= body_digest then
        return {'MISMATCH', now}
      end
      call('HSET', key, 'c', name)
      if watched then
        watch(key, fields, by, name)
      end
      return {'REPLAYED', now, earlier, fields}
    end
  end
end

local held = call('HMGET', KEYS[3], 'n', 'l')
local lane = held[2] or ''
-- The lane is `SINCE ID ID ..`. An id has 26 letters, and the time has fewer.
local open = math.floor(#lane / 27)
if open >= tonumber(max_open) then
  return {'LANE', now, open}
end
if full then
  return {'FULL', now}
end

-- The text is formatted once, because Lua would format a number at each concatenation.
local at = string.format('%d', now)
local position, client_message_id = '0', at
if held[1] then
  local next, last = string.match(held[1], '^(%d+) (%d+)$')
  position = next
  if now <= tonumber(last) then
    client_message_id = string.format('%d', last + 1)
  end
end
local accepted = position .. ' ' .. client_message_id .. ' ' .. at .. ' ' .. body
local sent = owned and lane == ''
local signs, watchers = sent and at .. ',,' or ',,', watched and by or ''
if digest then
  call('SET', KEYS[5], id .. body_digest)
  call('HSET', KEYS[4], 'c', name, 'a', accepted, 'p', signs, 'w', watchers, 'd', digest)
else
  call('HSET', KEYS[4], 'c', name, 'a', accepted, 'p', signs, 'w', watchers)
end

call('HSET', KEYS[3], 'v', VERSION,
  'n', string.format('%d %s', position + 1, client_message_id), 'l', (lane == '' and at or lane) .. ' ' .. id)
if lane == '' then
  activate(name)
end

if owner and owner ~= '' and owner ~= by then
  if #accepted < LARGE then
    call('PUBLISH', channel(owner), hint('A', {name, id, accepted}))
  else
    call('PUBLISH', channel(owner), hint('W', {name}))
  end
end
return {sent and 'SENT' or 'NEW', now, position, client_message_id, at}
