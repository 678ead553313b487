-- Devices: a hash `s:CLIENT` with short fields, so that it stays a listpack.
--   o number; e epoch; g generation of the connection that is up; b bytes of the inbox, l its last entry
--   stored session: x expiry in seconds, a when it ends, C<log> cursor, f<filter> subscription, h the node that had it may still hand it over,
--     q its node was given up and may serve it all the same
--   connected without one: p pushes to all when the number was given, k the number is known to a push
-- `x:CLIENT` holds what is long and rare: u unfinished exchanges, r<packet id> received ones, A<log> what is done above a cursor.
local NUMBERS_IN_CHUNK = 65536

local function device_key(client) return K .. 's:' .. client end
local function extra_key(client) return K .. 'x:' .. client end

local function load(client)
  local row = call('HMGET', device_key(client), 'o', 'e', 'g', 'x', 'a', 'k', 'p', 'h', 'l', 'q')
  if not row[1] then return nil end
  return {
    client = client, number = tonumber(row[1]), epoch = tonumber(row[2] or 0), owner = row[3] or nil,
    expiry = tonumber(row[4] or nil), ends_at = tonumber(row[5] or nil), known = row[6] or nil, pushes = tonumber(row[7] or nil),
    may_hand_over = row[8] or nil, last = tonumber(row[9] or nil), may_be_served = row[10] or nil,
  }
end

local function is_expired(device, now)
  return not device.owner and device.ends_at ~= nil and device.ends_at <= now
end

local function fence(client, epoch)
  local device = load(client)
  if device and (device.expiry or device.pushes) and device.epoch == epoch then return device end
end

-- Sets of devices: bitmaps in chunks. `s` stored sessions, `e` connected without one.
local function set_bit(set, number, bit)
  write('SETBIT', K .. 'b:' .. set .. ':' .. math.floor(number / NUMBERS_IN_CHUNK), number % NUMBERS_IN_CHUNK, bit)
end

local function take_number()
  local free = call('RPOP', K .. 'fo')
  if free then
    writes = writes + 1
    return tonumber(free)
  end
  local number = counter('o')
  set_counter('o', number + 1)
  return number
end

-- Who is connected through which node, so that the end of a node finds them.
local function connected_key(owner) return K .. 'g:' .. owner end
local function set_owner(device, owner)
  local before = device.owner
  if before == owner then return end
  if before and write('SREM', connected_key(before), device.client) == 1 and call('EXISTS', connected_key(before)) == 0 then
    write('SREM', K .. 'gs', before)
  end
  if owner then
    write('SADD', connected_key(owner), device.client)
    write('SADD', K .. 'gs', owner)
  end
  device.owner = owner
end

-- Filters of durable sessions: counted, or listed by member if shared.
local function is_shared(filter) return string.sub(filter, 1, 7) == '$share/' end

local function filter_added(client, filter, member)
  if not config.shared then return end
  if is_shared(filter) then
    local field = filter .. '\0' .. client
    if call('HGET', K .. 'sm', field) ~= member then
      write('HSET', K .. 'sm', field, member)
      change('M', filter, 'c', client, 'v', member)
    end
  elseif write('HINCRBY', K .. 'fc', filter, 1) == 1 then
    change('F', filter, 'v', '1')
  end
end

local function filter_removed(client, filter)
  if not config.shared then return end
  if is_shared(filter) then
    if write('HDEL', K .. 'sm', filter .. '\0' .. client) == 1 then change('M', filter, 'c', client) end
  elseif write('HINCRBY', K .. 'fc', filter, -1) <= 0 then
    write('HDEL', K .. 'fc', filter)
    change('F', filter)
  end
end

-- All of a stored session in parts.
local function parts_of(client)
  local parts = { filters = {}, cursors = {}, received = {}, unfinished = '', above = {}, names = {} }
  local row = call('HGETALL', device_key(client))
  for i = 1, #row, 2 do
    local kind, rest = string.sub(row[i], 1, 1), string.sub(row[i], 2)
    if kind == 'f' then
      parts.filters[#parts.filters + 1] = { rest, row[i + 1] }
      parts.names[#parts.names + 1] = row[i]
    elseif kind == 'C' then
      parts.cursors[#parts.cursors + 1] = { tonumber(rest), row[i + 1], '' }
      parts.names[#parts.names + 1] = row[i]
    end
  end
  row = call('HGETALL', extra_key(client))
  for i = 1, #row, 2 do
    local kind, rest = string.sub(row[i], 1, 1), string.sub(row[i], 2)
    if kind == 'u' then
      parts.unfinished = row[i + 1]
    elseif kind == 'r' then
      parts.received[#parts.received + 1] = tonumber(rest)
    elseif kind == 'A' then
      parts.above[tonumber(rest)] = row[i + 1]
    end
  end
  for _, cursor in ipairs(parts.cursors) do cursor[3] = parts.above[cursor[1]] or '' end
  table.sort(parts.cursors, function(a, b) return a[1] < b[1] end)
  table.sort(parts.received)
  return parts
end

local function push_cursor(parts)
  for _, cursor in ipairs(parts.cursors) do
    if cursor[1] == 0 then return cursor end
  end
end

-- Rows of the push domain: hashes `w:TABLE` by name of `VERSION:EXPIRY:VALUE`, with the names in order in `y:TABLE`. Table 16 is that of devices.
local function rows_key(number) return K .. 'w:' .. number end
local function names_key(number) return K .. 'y:' .. number end
local DEVICE_TABLE = 16
local DEVICE_ROWS = rows_key(DEVICE_TABLE)
-- What the push domain knows of a device, or `false`: its row.
local function profile_of(client)
  local stored = call('HGET', DEVICE_ROWS, client)
  return stored and string.match(stored, '^%d+:%d*:(.*)$')
end
-- A device has another profile, or (`false`) none any more. Whoever claims it later reads it then.
local function profile_changed(device, profile)
  if not device or not device.owner and not device.may_be_served then return end
  if profile then change('P', device.client, 'v', profile) else change('P', device.client) end
end

local function remove_fields(key, names)
  for first = 1, #names, 1000 do
    write('HDEL', key, unpack(names, first, math.min(first + 999, #names)))
  end
end
