-- Takes requests out of a token bucket that all servers share (generic cell rate algorithm, by the clock of Redis).
-- KEYS[1] has the time at which the bucket is full again, microseconds.
-- ARGV: microseconds between two requests; size of the bucket; requests that were served on credit, which count
-- whatever the bucket has; requests that are wanted in addition.
-- Returns the granted requests, of those wanted, and the microseconds until the next one is there.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local period, size = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0')) + ARGV[3] * period
local granted = math.min(tonumber(ARGV[4]), math.max(0, math.floor((now + size * period - full) / period)))
full = full + granted * period
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return { granted, math.max(0, math.ceil(full + period - size * period - now)) }
