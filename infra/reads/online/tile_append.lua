-- Appends records to the states of entities, once for each position of the log (SEMANTICS 4.3).
-- An argument is: view 8 bytes, limit u64, partition 8 bytes, first and last position i64, records.
-- A state is: view 8 bytes, number of slots and size when rolled up u32 each, m i64, slots of
-- (partition 8 bytes, last position i64), records. Numbers are little-endian; positions stay below 2^53.
-- The last argument is the name of a marker and its minimum position, '-' for any. A server that has lost writes has an
-- older marker, appends nothing and returns an empty string.
-- Otherwise returns one letter for each key: A appended, R appended and due to be rolled up, S already applied, P partly
-- applied already, F corrupt or another view's.
local EVER = '\0\0\0\0\0\0\0\128'
local sub, unpack, call = string.sub, struct.unpack, redis.call

local function number(text, at)
  local low, high = unpack('<I4i4', text, at)
  return high * 4294967296 + low
end

local function slot(head, slots, partition)
  for i = 0, slots - 1 do
    if sub(head, 25 + 16 * i, 32 + 16 * i) == partition then
      return i
    end
  end
end

local function append(key, arg)
  local partition, records = sub(arg, 17, 24), sub(arg, 41)
  -- The head and four slots: a state of few partitions needs no second read, however long it is.
  local head = call('GETRANGE', key, 0, 87)
  if #head == 0 then
    call('SET', key, sub(arg, 1, 8) .. struct.pack('<I4I4', 1, 0) .. EVER .. partition .. sub(arg, 33, 40) .. records)
    return 'A'
  end
  if sub(head, 1, 8) ~= sub(arg, 1, 8) then
    return 'F'
  end
  if #head < 24 then
    return 'F'
  end
  local slots, base = unpack('<I4I4', head, 9)
  if 24 + 16 * slots > call('STRLEN', key) then
    return 'F' -- corrupt: the state is too short for its slots
  end
  if slots > 4 then
    head = call('GETRANGE', key, 0, 23 + 16 * slots)
  end
  local index, size = slot(head, slots, partition), nil
  if index then
    local applied = number(head, 33 + 16 * index)
    if applied >= number(arg, 33) then
      return 'S'
    elseif applied >= number(arg, 25) then
      return 'P'
    end
    -- In this order: if memory runs out, the slot must not claim records that were not appended.
    size = call('APPEND', key, records)
    call('SETRANGE', key, 32 + 16 * index, sub(arg, 33, 40))
  else
    -- A new slot moves all records, so the state is written again: once for each partition.
    local old, at = call('GET', key), 24 + 16 * slots
    local new = sub(old, 1, 8) .. struct.pack('<I4I4', slots + 1, base) .. sub(old, 17, at)
      .. partition .. sub(arg, 33, 40) .. sub(old, at + 1) .. records
    call('SET', key, new)
    size = #new
  end
  -- The limit doubles with the state: the cost of roll-ups stays proportional to the bytes that are appended.
  return size > 2 * base + number(arg, 9) and 'R' or 'A'
end

local marker, expected = string.match(ARGV[#KEYS + 1], '^(.*) (%S+)$')
if expected ~= '-' then
  local stored = redis.pcall('GET', marker)
  -- An error means that the slot migrates to another node, whose marker has another name. Then all is applied again.
  if type(stored) ~= 'table' then
    stored = tonumber(string.match(stored or '', '^%S+') or '')
    if not stored or stored < tonumber(expected) then
      return ''
    end
  end
end

local out = {}
-- If memory runs out, the keys before it are appended already: their slots make a repetition skip them (SEMANTICS 4.3).
for i, key in ipairs(KEYS) do
  out[i] = append(key, ARGV[i])
end
return table.concat(out)
