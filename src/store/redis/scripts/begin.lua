-- Begins every script: reads the store's time, in milliseconds like all times.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
