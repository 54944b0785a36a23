-- Replaces states that have not changed since they were read. An argument is the size of the old state as u64, the
-- length of its head (24 bytes and slots) as u64, the head, and the new state. An old size of 0 means: no state yet.
-- An empty new state means: delete the old one.
-- Returns one letter for each key: Y replaced, N not replaced.
local sub, call = string.sub, redis.call

local function number(text, at)
  local low, high = struct.unpack('<I4I4', text, at)
  return high * 4294967296 + low
end

local out = {}
for i, key in ipairs(KEYS) do
  local arg = ARGV[i]
  local size, length = number(arg, 1), number(arg, 9)
  -- Writers only append records or change slots, so size and head identify a state: the rest need not be compared.
  local same = call('STRLEN', key) == size
  if same and length > 0 then
    same = call('GETRANGE', key, 0, length - 1) == sub(arg, 17, 16 + length)
  end
  if same and #arg == 16 + length then
    call('UNLINK', key)
  elseif same then
    call('SET', key, sub(arg, 17 + length))
  end
  out[i] = same and 'Y' or 'N'
end
return table.concat(out)
