-- Inboxes: sorted sets by place, one for each lane. A member is `PLACE:BYTES:PUSH:RECORD`, or `PLACE:BYTES:PUSH;KEYBYTES:KEYRECORD` with a collapse key;
-- PUSH is empty for a publish. The hash `c:CLIENT` says by collapse key where the entry is that has it: `LANE:PLACE`.
local NORMAL, HIGH, LOW = 0, 1, 2
local LANES, GIVING_WAY = { HIGH, NORMAL, LOW }, { LOW, NORMAL, HIGH }
local LANE_KEYS = { [NORMAL] = 'i:', [HIGH] = 'i1:', [LOW] = 'i2:' }
local LANE_FIELDS = { [HIGH] = 'high', [LOW] = 'low' }
local function inbox_key(client, lane) return K .. LANE_KEYS[lane] .. client end
local function keyed_key(client) return K .. 'c:' .. client end

-- Place, bytes, push or '', where the record begins, and the collapse key or nil.
local function parse_entry(member)
  local place, bytes, push, kind, at = string.match(member, '^(%d+):(%d+):(%x*)([:;])()')
  local key
  if kind == ';' then
    local key_bytes, key_at = string.match(member, '^(%d+):()', at)
    at = key_at + tonumber(key_bytes)
    key = string.sub(member, key_at, at - 1)
  end
  return tonumber(place), tonumber(bytes), push, at, key
end

-- How many entries a lane has, and its last one or 0.
local function lane_of(device, lane)
  if lane == NORMAL and not device.high and not device.low then return device.entries or 0, device.last or 0 end
  local field = LANE_FIELDS[lane]
  if field then
    if not device[field] then return 0, 0 end
    local entries, last = string.match(device[field], '^(%d+):(%d+)$')
    return tonumber(entries), tonumber(last)
  end
  local entries = device.entries or 0
  if device.high then entries = entries - lane_of(device, HIGH) end
  if device.low then entries = entries - lane_of(device, LOW) end
  return entries, device.last or 0
end

-- The lanes that hold anything. Most devices have none but the normal one.
local function lanes_of(device)
  if not device.high and not device.low then return device.entries and device.entries > 0 and { NORMAL } or {} end
  local lanes = {}
  for _, lane in ipairs(LANES) do
    if lane_of(device, lane) > 0 then lanes[#lanes + 1] = lane end
  end
  return lanes
end

local function push_key(push) return K .. 'P:' .. push end

-- For whom a push is: `l` of its hash.
local TO_FEW, TO_ALL, TO_ONE = '0', '1', '2'

-- Sets of devices that a push has: `t` targeted, `d` delivered, `x` dropped, `r` replaced, `s` shown, `k` clicked, `w` wiped away; and of those that will not get it, `b` too big,
-- `f` capped, `q` quiet hours, `p` the local time was past. Those of a push to all are bitmaps in
-- chunks, of one to few devices sets of numbers, of one to a device fields of its hash: `t` is the number, and the others are there or not.
local SETS = { 't', 'd', 'x', 'r', 's', 'k', 'w', 'b', 'f', 'q', 'p' }
-- Those that say why a device has not got a push, the one that wins first.
local REASONS = { 'b', 'x', 'f', 'q', 'p', 'r' }
local function is_marked(push, kind, name, number)
  local key = push_key(push)
  if kind == TO_ALL then
    local chunk = math.floor(number / NUMBERS_IN_CHUNK)
    return call('GETBIT', key .. ':' .. name .. ':' .. chunk, number % NUMBERS_IN_CHUNK) == 1
  elseif kind == TO_ONE then
    local row = call('HMGET', key, 't', name)
    return tonumber(row[1]) == number and row[2] ~= false
  end
  return call('SISMEMBER', key .. ':' .. name, number) == 1
end

-- The number under which a push knows a client that reports under `reported`: that one, unless the client lost it with its node, which goes on without
-- knowing, and the push came to it under the number that it has now.
local function number_in(push, client, reported)
  local device = load(client)
  if not device or device.number == reported then return reported end
  local kind, to_audience = unpack(call('HMGET', push_key(push), 'l', 'g'))
  if not kind or to_audience or is_marked(push, kind, 't', reported) then return reported end
  return is_marked(push, kind, 't', device.number) and device.number or reported
end

-- Adds a device to a set. Marks are written at the end of the script, those of a push together: `is_marked` does not know them before. By push: `sets` of
-- numbers to add, and all the `devices` in them.
--
-- `client` is the device's name, `data` belongs to the event that tells of it. What is new in a set is told, in the order of the marks.
local marks, told = {}, {}
local function mark(push, name, number, client, data)
  if events.has_listeners() then told[#told + 1] = { push, name, number, client, data } end
  local of_push = marks[push] or { sets = {}, devices = {} }
  marks[push] = of_push
  local numbers = of_push.sets[name] or {}
  of_push.sets[name] = numbers
  numbers[#numbers + 1] = number
  of_push.devices[number] = true
end
-- Whether this script has added a device to any set. Of a push to an audience it is one whom it is for, then.
local function is_about_to_be_marked(push, number) return marks[push] ~= nil and marks[push].devices[number] == true end

local BITS_AT_ONCE = 500
-- `on_new` gets each number whose bit was not set.
local function save_bits(key, numbers, on_new)
  local by_chunk = {}
  for _, number in ipairs(numbers) do
    local chunk = math.floor(number / NUMBERS_IN_CHUNK)
    local bits = by_chunk[chunk] or {}
    by_chunk[chunk] = bits
    for _, word in ipairs({ 'SET', 'u1', number % NUMBERS_IN_CHUNK, 1 }) do bits[#bits + 1] = word end
  end
  for chunk, bits in pairs(by_chunk) do
    for first = 1, #bits, BITS_AT_ONCE * 4 do
      local before = write('BITFIELD', key .. ':' .. chunk, unpack(bits, first, math.min(first + BITS_AT_ONCE * 4 - 1, #bits)))
      for place, bit in ipairs(before) do
        if bit == 0 then on_new(chunk * NUMBERS_IN_CHUNK + bits[first + place * 4 - 2]) end
      end
    end
  end
end

-- The bitmaps of a push to an audience reach this chunk.
local function raise_chunks(push, chunk)
  if tonumber(call('HGET', push_key(push), 'c') or 0) <= chunk then write('HSET', push_key(push), 'c', chunk + 1) end
end

local save_marks
do
  local EVENT_OF_SET = {
    d = events.delivered, x = events.dropped, r = events.collapsed, s = events.displayed, k = events.clicked, w = events.dismissed,
    b = events.failed, f = events.dropped, q = events.dropped, p = events.dropped,
  }

  -- Whether a push is for a device, or its audience is counted by those who tell.
  local function is_targeted(push, row, number)
    if row[3] then return true end
    return row[1] == TO_ONE and tonumber(row[2]) == number or row[1] ~= TO_ONE and is_marked(push, row[1], 't', number)
  end

  -- How many devices were new to a set, by stretches of time since acceptance: the hash `P:ID:h` of `STRETCH:SET`. The first 180 are minutes, the others hours.
  -- Of a push to one device the sets say all there is to know.
  local IN_SERIES = { d = true, s = true, k = true, w = true }
  local function count_in_series(key, row, name, count)
    if count == 0 or not IN_SERIES[name] or row[1] == TO_ONE then return end
    local minute = math.floor(math.max(server_ms - tonumber(row[4]), 0) / 60000)
    local stretch = minute < 180 and minute or math.min(177 + math.floor(minute / 60), 872)
    write('HINCRBY', key .. ':h', digits(stretch) .. ':' .. name, count)
  end

  save_marks = function()
    local rows, new = {}, {}
    for push, of_push in pairs(marks) do
      local key = push_key(push)
      local row = call('HMGET', key, 'l', 't', 'g', 'a', 'i')
      rows[push] = row
      -- Whoever counts those that a push to an audience is for may see a device otherwise than the node that sent it.
      if row[3] then
        local targeted, last = {}, 0
        for number in pairs(of_push.devices) do
          targeted[#targeted + 1] = number
          last = math.max(last, number)
        end
        of_push.sets.t = targeted
        raise_chunks(push, math.floor(last / NUMBERS_IN_CHUNK))
      end
      for name, numbers in pairs(of_push.sets) do
        local count = 0
        local function on_new(number)
          new[push .. name .. number] = true
          count = count + 1
        end
        if not row[1] then
          -- Nobody asks for that report any more.
        elseif row[1] == TO_ALL then
          save_bits(key .. ':' .. name, numbers, on_new)
        elseif row[1] == TO_FEW and events.has_listeners() then
          for _, number in ipairs(numbers) do
            if write('SADD', key .. ':' .. name, number) == 1 then on_new(number) end
          end
        elseif row[1] == TO_FEW then
          for first = 1, #numbers, BITS_AT_ONCE do
            count = count + write('SADD', key .. ':' .. name, unpack(numbers, first, math.min(first + BITS_AT_ONCE - 1, #numbers)))
          end
        else
          for _, number in ipairs(numbers) do
            if number == tonumber(row[2]) and write('HSET', key, name, 1) == 1 then on_new(number) end
          end
        end
        count_in_series(key, row, name, count)
      end
    end
    for _, one in ipairs(told) do
      local push, name, number, client, data = unpack(one, 1, 5)
      local at = push .. name .. number
      if new[at] and EVENT_OF_SET[name] and not rows[push][5] and is_targeted(push, rows[push], number) then
        new[at] = nil
        events.append(EVENT_OF_SET[name], client, push, data)
      end
    end
  end
end

-- The device that is about to get an inbox entry, made if it was never seen.
local function device_for_inbox(client)
  local device = load(client)
  if not device then
    device = new_device(client)
    set(device, 'number', take_number())
  elseif device.pushes then
    set(device, 'known', 1)
  end
  return device
end

-- Counts entries of a lane that came or went. `last`: the one that came.
local function count_entries(device, lane, entries, bytes, last)
  -- Of all inboxes together.
  add_to_counter('ib', bytes)
  local before, last_before = lane_of(device, lane)
  local left, all = before + entries, (device.entries or 0) + entries
  last = last or last_before
  set(device, 'entries', all > 0 and all or nil)
  set(device, 'bytes', all > 0 and (device.bytes or 0) + bytes or nil)
  if lane ~= NORMAL then
    set(device, LANE_FIELDS[lane], left > 0 and digits(left) .. ':' .. digits(last) or nil)
  elseif left == 0 or last ~= last_before then
    set(device, 'last', left > 0 and last or nil)
  end
end

local function remove_entries(device, lane, members)
  if #members == 0 then return end
  local bytes = 0
  for _, member in ipairs(members) do
    local place, size, push, _, key = parse_entry(member)
    if push == '' then unindex('E' .. digits(place) .. ':' .. device.client) end
    -- No other entry has it.
    if key then write('HDEL', keyed_key(device.client), key) end
    bytes = bytes + size
  end
  for first = 1, #members, BITS_AT_ONCE do
    write('ZREM', inbox_key(device.client, lane), unpack(members, first, math.min(first + BITS_AT_ONCE - 1, #members)))
  end
  count_entries(device, lane, -#members, -bytes)
end

-- Removes the entry that has a collapse key, since a newer push takes its place. Returns where it was, or false.
local function replace(device, key, by)
  local where = call('HGET', keyed_key(device.client), key)
  if not where then return false end
  local lane, place = string.match(where, '^(%d):(%d+)$')
  lane = tonumber(lane)
  local member = call('ZRANGEBYSCORE', inbox_key(device.client, lane), place, place)[1]
  if not member then return false end
  local _, _, push = parse_entry(member)
  remove_entries(device, lane, { member })
  mark(push, 'r', device.number, device.client, '{"by":"' .. events.ulid(by) .. '"}')
  write('HSET', push_key(push), 'b' .. digits(device.number), by)
  return tonumber(place)
end

local function is_over_quota(device)
  return device.entries and (device.entries > config.inbox_entries or device.bytes > config.inbox_bytes)
end

-- Drops the least urgent, and of those the oldest, until the inbox fits its quota. Returns whether the entry at `newest` is still there.
local function drop_oldest(device, newest)
  local survives = true
  for _, lane in ipairs(GIVING_WAY) do
    while is_over_quota(device) and lane_of(device, lane) > 0 do
      local member = call('ZRANGE', inbox_key(device.client, lane), 0, 0)[1]
      if not member then break end
      local oldest, _, push = parse_entry(member)
      remove_entries(device, lane, { member })
      survives = survives and oldest ~= newest
      dropped = dropped + 1
      if push ~= '' then mark(push, 'x', device.number, device.client, '{"reason":"inbox_full"}') end
    end
  end
  return survives
end

-- item: record, bytes, push or '', expiry or false, lane, collapse key or false
local function append_to_inbox(device, place, item, notice)
  local client, lane, key = device.client, item[5], item[6]
  local replaced = key and replace(device, key, item[3])
  local _, previous = lane_of(device, lane)
  local head = digits(place) .. ':' .. item[2] .. ':' .. item[3]
  local member = key and head .. ';' .. #key .. ':' .. key .. item[1] or head .. ':' .. item[1]
  write('ZADD', inbox_key(client, lane), digits(place), member)
  if key then write('HSET', keyed_key(client), key, lane .. ':' .. digits(place)) end
  if item[3] == '' and item[4] then index(item[4], 'E' .. digits(place) .. ':' .. client) end
  count_entries(device, lane, 1, item[2], config.shared and place)
  if is_over_quota(device) and not drop_oldest(device, place) then return end
  announce('I', notice, device.owner or '0', previous, place, replaced)
  if config.shared and device.owner then note(device.owner, client, place, lane) end
end

-- Returns how many of these places there were. Each may be named more than once.
local function remove_from_inbox(device, places)
  if not device.entries then return 0 end
  local members, seen, lanes, removed = {}, {}, lanes_of(device), 0
  for _, lane in ipairs(lanes) do members[lane] = {} end
  for _, place in ipairs(places) do
    for _, lane in ipairs(lanes) do
      local member = not seen[place] and call('ZRANGEBYSCORE', inbox_key(device.client, lane), place, place)[1]
      if member then
        members[lane][#members[lane] + 1] = member
        seen[place] = true
        break
      end
    end
  end
  for _, lane in ipairs(lanes) do
    remove_entries(device, lane, members[lane])
    removed = removed + #members[lane]
  end
  return removed
end

-- What ends with a session: all that are no pushes. They are in the normal lane.
local function purge_publishes(device)
  if not device.entries then return end
  local members = {}
  for _, member in ipairs(call('ZRANGE', inbox_key(device.client, NORMAL), 0, -1)) do
    local _, _, push = parse_entry(member)
    if push == '' then members[#members + 1] = member end
  end
  remove_entries(device, NORMAL, members)
end

-- Forgets a device without a session whose inbox is empty, unless it is registered.
local function forget_idle(device)
  forget_memory(device)
  if device.expiry or device.pushes or device.entries then return false end
  if call('HEXISTS', DEVICE_ROWS, device.client) == 1 then return false end
  write('DEL', device_key(device.client))
  devices[device.client], changed_devices[device.client] = false, nil
  return true
end
