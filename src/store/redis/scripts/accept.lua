-- Accepts a message: idempotency, lane, clientMessageId and position.
--
-- KEYS  1 lease  2 ready  3 conversation  4 message  5 idempotency key, where there is one
-- Answers NEW position clientMessageId acceptedAt | REPLAYED id fields | MISMATCH | LANE open | FULL
local name, id, body = ARGV[2], ARGV[3], ARGV[4]
local max_open, full = tonumber(ARGV[5]), ARGV[6] == '1'
local by, watched, channel = ARGV[7], ARGV[8] == '1', ARGV[9]
local digest, body_digest = ARGV[10], ARGV[11]

-- The same id is the same replica asking again, because it does not know whether the first time arrived.
local first = redis.call('HMGET', KEYS[4], 'c', 'a')
if first[2] then
  if first[1] ~= name then
    return {'MISMATCH', now}
  end
  -- Changes nothing, but gives a WAIT behind it something to wait for: that the first time reached the replicas.
  redis.call('HSET', KEYS[4], 'c', name)
  local position, client_message_id, accepted_at = string.match(first[2], '^(%d+) (%d+) (%d+) ')
  return {'NEW', now, position, client_message_id, accepted_at}
end

if KEYS[5] then
  local held = redis.call('GET', KEYS[5])
  if held then
    local earlier = string.sub(held, 1, 26)
    local key = string.sub(KEYS[4], 1, -27) .. earlier
    local fields = redis.call('HGETALL', key)
    if #fields > 0 then
      if string.sub(held, 27) ~= body_digest then
        return {'MISMATCH', now}
      end
      redis.call('HSET', key, 'c', name)
      if watched then
        watch(key, fields, by)
      end
      return {'REPLAYED', now, earlier, fields}
    end
  end
end

local held = redis.call('HMGET', KEYS[3], 'n', 'l')
local lane = held[2] or ''
local _, open = string.gsub(lane, ' ', '')
if open >= max_open then
  return {'LANE', now, open}
end
if full then
  return {'FULL', now}
end

local position, client_message_id = 0, now
if held[1] then
  local next, last = string.match(held[1], '^(%d+) (%d+)$')
  position, client_message_id = tonumber(next), math.max(now, last + 1)
end
local accepted = string.format('%d %d %d ', position, client_message_id, now) .. body
local fields = {'c', name, 'a', accepted}
if watched then
  fields[5], fields[6] = 'w', by
end
if KEYS[5] then
  fields[#fields + 1] = 'd'
  fields[#fields + 1] = digest
  redis.call('SET', KEYS[5], id .. body_digest)
end
redis.call('HSET', KEYS[4], unpack(fields))

local head = lane == '' and string.format('%d', now) or lane
redis.call('HSET', KEYS[3],
  'n', string.format('%d %d', position + 1, client_message_id), 'l', head .. ' ' .. id)
if lane == '' then
  redis.call('PERSIST', KEYS[3])
  redis.call('SADD', KEYS[2], name)
end

local owner = redis.call('HGET', KEYS[1], 'o')
if owner and owner ~= '' and owner ~= by then
  if #accepted < LARGE then
    redis.call('PUBLISH', channel .. owner, hint('A', {name, id, accepted}))
  else
    redis.call('PUBLISH', channel .. owner, hint('W', {name}))
  end
end
return {'NEW', now, position, client_message_id, now}
