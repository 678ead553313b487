-- Inboxes: a sorted set `i:CLIENT` by place. A member is `PLACE:BYTES:PUSH:RECORD`; PUSH is empty for a publish.
local function inbox_key(client) return K .. 'i:' .. client end
local function parse_entry(member)
  local place, bytes, push = string.match(member, '^(%d+):(%d+):(%x*):')
  return tonumber(place), tonumber(bytes), push
end

local function push_key(push) return K .. 'P:' .. push end

-- Adds a device to a set of a push: `t` targeted, `d` delivered, `x` dropped, `s` shown, `k` clicked, `w` wiped away. Those of a push to all are bitmaps, of one to few devices sets of numbers.
local function mark(push, to_all, set, number)
  if to_all == '1' then
    local chunk = math.floor(number / NUMBERS_IN_CHUNK)
    write('SETBIT', push_key(push) .. ':' .. set .. ':' .. chunk, number % NUMBERS_IN_CHUNK, 1)
  else
    write('SADD', push_key(push) .. ':' .. set, number)
  end
end

local SETS = { 't', 'd', 'x', 's', 'k', 'w' }
local function is_marked(push, to_all, set, number)
  if to_all == '1' then
    local chunk = math.floor(number / NUMBERS_IN_CHUNK)
    return call('GETBIT', push_key(push) .. ':' .. set .. ':' .. chunk, number % NUMBERS_IN_CHUNK) == 1
  end
  return call('SISMEMBER', push_key(push) .. ':' .. set, number) == 1
end

-- The bitmaps of a push to an audience reach this chunk.
local function raise_chunks(push, chunk)
  if tonumber(call('HGET', push_key(push), 'c') or 0) <= chunk then write('HSET', push_key(push), 'c', chunk + 1) end
end

-- The device that is about to get an inbox entry, made if it was never seen.
local function device_for_inbox(client)
  local device = load(client)
  if not device then
    device = { client = client, number = take_number(), epoch = 0 }
    write('HSET', device_key(client), 'o', device.number)
  elseif device.pushes and not device.known then
    write('HSET', device_key(client), 'k', 1)
  end
  return device
end

-- Of all inboxes together the counter ib.
local function count_bytes(client, bytes)
  set_counter('ib', math.max(counter('ib') + bytes, 0))
  if call('EXISTS', inbox_key(client)) == 0 then
    write('HDEL', device_key(client), 'b', 'l')
    return 0
  end
  return write('HINCRBY', device_key(client), 'b', bytes)
end

-- item: record, bytes, push or '', expiry or false
local function append_to_inbox(device, place, item, notice)
  local client, key, previous = device.client, inbox_key(device.client), device.last or 0
  write('ZADD', key, digits(place), digits(place) .. ':' .. item[2] .. ':' .. item[3] .. ':' .. item[1])
  if config.shared then
    write('HSET', device_key(client), 'l', digits(place))
    device.last = place
  end
  if item[3] == '' and item[4] then index(item[4], 'E' .. digits(place) .. ':' .. client) end
  local bytes, entries, survives = count_bytes(client, item[2]), call('ZCARD', key), true
  while entries > config.inbox_entries or bytes > config.inbox_bytes do
    local member = call('ZRANGE', key, 0, 0)[1]
    if not member then break end
    local oldest, size, push = parse_entry(member)
    write('ZREM', key, member)
    if push == '' then unindex('E' .. digits(oldest) .. ':' .. client) end
    bytes, entries = count_bytes(client, -size), entries - 1
    survives = survives and oldest ~= place
    dropped = dropped + 1
    if push ~= '' then mark(push, call('HGET', push_key(push), 'l'), 'x', device.number) end
  end
  if entries == 0 then device.last = nil end
  if not survives then return end
  announce('I', notice, device.owner or '0', previous, place)
  if config.shared and device.owner then note(device.owner, client, place) end
end

local function remove_entry(client, member)
  local place, size, push = parse_entry(member)
  write('ZREM', inbox_key(client), member)
  if push == '' then unindex('E' .. digits(place) .. ':' .. client) end
  count_bytes(client, -size)
end

local function remove_from_inbox(client, place)
  local found = call('ZRANGEBYSCORE', inbox_key(client), place, place)
  for _, member in ipairs(found) do remove_entry(client, member) end
  return #found
end

-- What ends with a session: all that are no pushes.
local function purge_publishes(client)
  for _, member in ipairs(call('ZRANGE', inbox_key(client), 0, -1)) do
    local _, _, push = parse_entry(member)
    if push == '' then remove_entry(client, member) end
  end
end

-- Forgets a device without a session whose inbox is empty, unless it is registered.
local function forget_idle(client)
  local row = call('HMGET', device_key(client), 'o', 'x', 'p')
  if row[1] and not row[2] and not row[3] and call('EXISTS', inbox_key(client)) == 0
    and call('HEXISTS', DEVICE_ROWS, client) == 0 then
    write('DEL', device_key(client))
    return true
  end
end
