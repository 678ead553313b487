-- Cursors of a stored session: a place in the push log (0) and, with its first subscription, one in each topic log (1 and up).
--   `PLACE`    all are at the ends of their logs, of which this was the last: later entries of any log have places beyond it. Most often it is so
--   `-PLACE`   the push log's is, and there are no others
--   else packed: `[PLACE, log 0, log 1, ...]`: false if there is none, 0 at the end as above, or how far before PLACE, plus 1
--   `+`        the same in the field `c` of what is long
-- Fields of more than 64 bytes would make a hash table of the device.
local CURSORS_INLINE = 60

-- Places by log.
local function cursors_of(device)
  local stored, cursors = device.cursors, {}
  if not stored then return cursors end
  local sign, place = string.match(stored, '^(%-?)(%d+)$')
  if place then
    for log = 0, sign == '-' and 0 or config.partitions do cursors[log] = math.min(tonumber(place), end_of(log)) end
    return cursors
  end
  if stored == '+' then stored = call('HGET', extra_key(device.client), 'c') end
  local packed = cmsgpack.unpack(stored)
  for number = 2, #packed do
    local log, before = number - 2, packed[number]
    if before == 0 then
      cursors[log] = math.min(packed[1], end_of(log))
    elseif before then
      cursors[log] = packed[1] - before + 1
    end
  end
  return cursors
end

local function set_cursors(device, cursors)
  local base, last, all_at_end, count = 0, 0, true, 0
  for log, place in pairs(cursors) do
    base, last, count = math.max(base, place), math.max(last, log), count + 1
    all_at_end = all_at_end and place == end_of(log)
  end
  local stored
  if count == 0 then
    stored = nil
  elseif all_at_end and cursors[0] and last == config.partitions and count == last + 1 then
    stored = digits(base)
  elseif all_at_end and cursors[0] and last == 0 then
    stored = '-' .. digits(base)
  else
    local packed = { base }
    for log = 0, last do
      local place = cursors[log]
      packed[log + 2] = place ~= nil and (place == end_of(log) and 0 or base - place + 1)
    end
    stored = cmsgpack.pack(packed)
    if #stored > CURSORS_INLINE then
      write('HSET', extra_key(device.client), 'c', stored)
      set(device, 'has_extra', 1)
      stored = '+'
    end
  end
  set(device, 'cursors', stored)
end

-- All of a stored session in parts; `cursors`: { log, place, what is done above it }.
local function parts_of(device)
  local parts = { filters = {}, cursors = {}, received = {}, unfinished = '' }
  local row = call('HGETALL', device_key(device.client))
  for i = 1, #row, 2 do
    if string.sub(row[i], 1, 1) == 'f' then parts.filters[#parts.filters + 1] = { string.sub(row[i], 2), row[i + 1] } end
  end
  local above = {}
  row = call('HGETALL', extra_key(device.client))
  for i = 1, #row, 2 do
    local kind, rest = string.sub(row[i], 1, 1), string.sub(row[i], 2)
    if kind == 'u' then
      parts.unfinished = row[i + 1]
    elseif kind == 'r' then
      parts.received[#parts.received + 1] = tonumber(rest)
    elseif kind == 'A' then
      above[tonumber(rest)] = row[i + 1]
    end
  end
  for log, place in pairs(cursors_of(device)) do
    parts.cursors[#parts.cursors + 1] = { log, digits(place), above[log] or '' }
  end
  table.sort(parts.cursors, function(a, b) return a[1] < b[1] end)
  table.sort(parts.received)
  return parts
end

local function push_cursor(parts)
  local first = parts.cursors[1]
  if first and first[1] == 0 then return first end
end
