-- Begins every script: the store's time, in milliseconds as all times are.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
