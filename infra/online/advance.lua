-- Moves a marker forward; it never goes back. Positions stay below 2^53.
local old = tonumber(redis.call('GET', KEYS[1]))
if not old or tonumber(ARGV[1]) > old then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
