-- Writes each row unless the stored one ranks at least as high. A rank is 32 bytes: four big-endian
-- 64-bit numbers, compared as eight unsigned 32-bit words, since Lua's numbers are doubles.
local FORMAT = '>I4I4I4I4I4I4I4I4'
local written = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i]
  local old = redis.call('GETRANGE', key, 0, 31)
  local newer = #old < 32
  if not newer then
    local a = { struct.unpack(FORMAT, row) }
    local b = { struct.unpack(FORMAT, old) }
    for word = 1, 8 do
      if a[word] ~= b[word] then
        newer = a[word] > b[word]
        break
      end
    end
  end
  if newer then
    redis.call('SET', key, row)
    written = written + 1
  end
end
return written
