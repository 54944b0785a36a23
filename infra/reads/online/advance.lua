-- Advances markers; they never go back. Positions stay below 2^53. Returns the number of updated markers.
-- An argument is 'POSITION IDENTITY LAYOUT EXPECTED WATERMARK'. A server with another IDENTITY, or a restarted one,
-- changes nothing; '-' matches any server. EXPECTED is the minimum position of the stored marker; '-' is any.
-- LAYOUT '=' keeps the stored layout.
-- A stored marker is 'POSITION WATERMARK LAYOUT', without LAYOUT if it is '-'. WATERMARK 0 keeps the stored watermark,
-- unless the new position is below -1: such a marker covers no rows.
local function identity()
  return (string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?')
    .. ':' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?')
end

-- Returns the position of a stored marker; nil if it is missing or corrupt.
local function position_of(old)
  local digits = old and (string.match(old, '^(%-?%d+) %d+$') or string.match(old, '^(%-?%d+) %d+ %S+$')
    or string.match(old, '^(%-?%d+)$'))
  local number = tonumber(digits or '')
  return number and math.abs(number) < 1e16 and number or nil
end

local updated = 0
for i, key in ipairs(KEYS) do
  local position, server, layout, expected, watermark = string.match(ARGV[i], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  local old = redis.call('GET', key)
  local stored = position_of(old)
  -- A corrupt marker counts as missing, so that it can be replaced.
  if not stored then old = false end
  local reached = expected == '-' or (old and stored >= tonumber(expected))
  -- A restarted server may have lost rows that the marker would cover (SEMANTICS 4.5).
  if reached and (server == '-' or server == identity()) then
    if old and stored > tonumber(position) then
      position = string.match(old, '^%S+')
    end
    if watermark == '0' and tonumber(position) > -2 then
      watermark = old and string.match(old, '^%S+ (%d+)') or watermark
    end
    if layout == '=' then
      layout = old and string.match(old, '^%S+ %d+ (%S+)') or '-'
    end
    redis.call('SET', key, position .. ' ' .. watermark .. (layout == '-' and '' or ' ' .. layout))
    updated = updated + 1
  end
end
return updated
