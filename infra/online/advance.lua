-- Moves markers forward; they never go back. Positions stay below 2^53. Answers how many servers took it.
-- An argument is 'POSITION IDENTITY LAYOUT EXPECTED WATERMARK': a server that is another than IDENTITY says, or was
-- started again, takes nothing; '-' is any server. EXPECTED is what the marker must have reached; '-' is anything.
-- A LAYOUT of '=' is the one that stands there.
-- A marker is 'POSITION WATERMARK', behind which LAYOUT stands, if it is not '-'. A WATERMARK of 0 leaves the one that
-- stands, but for that of a marker which vouches for nothing (below -1).
local function identity()
  return (string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?')
    .. ':' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?')
end

-- What is no marker, since it was damaged, is none.
local function position_of(old)
  local found = old and (string.match(old, '^(%-?%d+) %d+$') or string.match(old, '^(%-?%d+) %d+ %S+$')
    or string.match(old, '^(%-?%d+)$'))
  local number = tonumber(found or '')
  return number and math.abs(number) < 1e16 and number or nil
end

local taken = 0
for i, key in ipairs(KEYS) do
  local position, server, layout, expected, watermark = string.match(ARGV[i], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  local old = redis.call('GET', key)
  local stands = position_of(old)
  if not stands then old = false end
  local reached = expected == '-' or (old and stands >= tonumber(expected))
  if reached and (server == '-' or server == identity()) then
    if old and stands > tonumber(position) then
      position = string.match(old, '^%S+')
    end
    if watermark == '0' and tonumber(position) > -2 then
      watermark = old and string.match(old, '^%S+ (%d+)') or watermark
    end
    if layout == '=' then
      layout = old and string.match(old, '^%S+ %d+ (%S+)') or '-'
    end
    redis.call('SET', key, position .. ' ' .. watermark .. (layout == '-' and '' or ' ' .. layout))
    taken = taken + 1
  end
end
return taken
