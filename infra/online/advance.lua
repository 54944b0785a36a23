-- Moves markers forward; they never go back. Positions stay below 2^53. Answers how many servers took it.
-- An argument is 'POSITION IDENTITY LAYOUT EXPECTED': a server that is another than IDENTITY says, or was started
-- again, takes nothing; '-' is any server. LAYOUT, if not '-', is kept beside the position. EXPECTED is what
-- the marker must have reached; '-' is anything.
local function identity()
  return (string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?')
    .. ':' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?')
end

local taken = 0
for i, key in ipairs(KEYS) do
  local position, server, layout, expected = string.match(ARGV[i], '^(%S+) (%S+) (%S+) (%S+)$')
  local old = redis.call('GET', key)
  local reached = expected == '-' or (old and tonumber(string.match(old, '^%S+')) >= tonumber(expected))
  if reached and (server == '-' or server == identity()) then
    if old and tonumber(string.match(old, '^%S+')) > tonumber(position) then
      position = string.match(old, '^%S+')
    end
    redis.call('SET', key, layout == '-' and position or position .. ' ' .. layout)
    taken = taken + 1
  end
end
return taken
