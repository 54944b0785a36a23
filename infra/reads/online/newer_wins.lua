-- Writes each row unless the stored row has a higher or equal rank; returns the number of written rows.
-- A rank is 32 bytes, compared as unsigned numbers of at most 48 bits, because Lua's numbers are doubles.
local FORMAT = '>I6I6I6I6I6I2'
local unpack, rank, insert = unpack, struct.unpack, table.insert

local function newer(row, old)
  -- A value without a complete rank is corrupt: it must not keep out the rows of its entity for ever.
  if not old or #old < 32 then
    return true
  end
  local a1, a2, a3, a4, a5, a6 = rank(FORMAT, row)
  local b1, b2, b3, b4, b5, b6 = rank(FORMAT, old)
  if a1 ~= b1 then return a1 > b1 end
  if a2 ~= b2 then return a2 > b2 end
  if a3 ~= b3 then return a3 > b3 end
  if a4 ~= b4 then return a4 > b4 end
  if a5 ~= b5 then return a5 > b5 end
  return a6 > b6
end

local stored = redis.call('MGET', unpack(KEYS))
local seen, winners, written = {}, {}, 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i]
  -- A key may occur twice in one call: its second row competes with the first, not with the stored row.
  if newer(row, seen[key] or stored[i]) then
    seen[key] = row
    insert(winners, key)
    insert(winners, row)
    written = written + 1
  end
end
if written > 0 then
  -- unpack puts two values for each winner on Lua's stack: KEYS_PER_CALL keeps them far below its limit.
  redis.call('MSET', unpack(winners))
end
return written
