-- Inboxes: a sorted set `i:CLIENT` by place. A member is `PLACE:BYTES:PUSH:RECORD`; PUSH is empty for a publish.
local function inbox_key(client) return K .. 'i:' .. client end
local function parse_entry(member)
  local place, bytes, push = string.match(member, '^(%d+):(%d+):(%x*):')
  return tonumber(place), tonumber(bytes), push
end

local function push_key(push) return K .. 'P:' .. push end

-- For whom a push is: `l` of its hash.
local TO_FEW, TO_ALL, TO_ONE = '0', '1', '2'

-- Sets of devices that a push has: `t` targeted, `d` delivered, `x` dropped, `s` shown, `k` clicked, `w` wiped away. Those of a push to all are bitmaps in
-- chunks, of one to few devices sets of numbers, of one to a device fields of its hash: `t` is the number, and the others are there or not.
local SETS = { 't', 'd', 'x', 's', 'k', 'w' }
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

-- Adds a device to a set. Marks are written at the end of the script, those of a push together: `is_marked` does not know them before. By push: `sets` of
-- numbers to add, and all the `devices` in them.
--
-- `client` is the device's name, `data` belongs to the event that tells of it. What is new in a set is told, in the order of the marks.
local EVENT_OF_SET = {
  d = EVENT.delivered, x = EVENT.dropped, s = EVENT.displayed, k = EVENT.clicked, w = EVENT.dismissed,
}
local marks, told = {}, {}
local function mark(push, name, number, client, data)
  if has_listeners() then told[#told + 1] = { push, name, number, client, data } end
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

-- Whether a push is for a device, or its audience is counted by those who tell.
local function is_targeted(push, row, number)
  if row[3] then return true end
  return row[1] == TO_ONE and tonumber(row[2]) == number or row[1] ~= TO_ONE and is_marked(push, row[1], 't', number)
end

local function save_marks()
  local rows, new = {}, {}
  for push, of_push in pairs(marks) do
    local key = push_key(push)
    local row = call('HMGET', key, 'l', 't', 'g')
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
      local function on_new(number) new[push .. name .. number] = true end
      if not row[1] then
        -- Nobody asks for that report any more.
      elseif row[1] == TO_ALL then
        save_bits(key .. ':' .. name, numbers, on_new)
      elseif row[1] == TO_FEW and has_listeners() then
        for _, number in ipairs(numbers) do
          if write('SADD', key .. ':' .. name, number) == 1 then on_new(number) end
        end
      elseif row[1] == TO_FEW then
        for first = 1, #numbers, BITS_AT_ONCE do
          write('SADD', key .. ':' .. name, unpack(numbers, first, math.min(first + BITS_AT_ONCE - 1, #numbers)))
        end
      else
        for _, number in ipairs(numbers) do
          if number == tonumber(row[2]) and write('HSET', key, name, 1) == 1 then on_new(number) end
        end
      end
    end
  end
  for _, one in ipairs(told) do
    local push, name, number, client, data = unpack(one, 1, 5)
    local at = push .. name .. number
    if new[at] and EVENT_OF_SET[name] and is_targeted(push, rows[push], number) then
      new[at] = nil
      append_event(EVENT_OF_SET[name], client, push, data)
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

-- Counts entries that came or went.
local function count_entries(device, entries, bytes)
  entries = (device.entries or 0) + entries
  set(device, 'entries', entries > 0 and entries or nil)
  set(device, 'bytes', entries > 0 and (device.bytes or 0) + bytes or nil)
  if entries == 0 then set(device, 'last', nil) end
end

local function remove_entries(device, members)
  if #members == 0 then return end
  local bytes = 0
  for _, member in ipairs(members) do
    local place, size, push = parse_entry(member)
    if push == '' then unindex('E' .. digits(place) .. ':' .. device.client) end
    bytes = bytes + size
  end
  for first = 1, #members, BITS_AT_ONCE do
    write('ZREM', inbox_key(device.client), unpack(members, first, math.min(first + BITS_AT_ONCE - 1, #members)))
  end
  count_entries(device, -#members, -bytes)
end

-- item: record, bytes, push or '', expiry or false
local function append_to_inbox(device, place, item, notice)
  local client, key, previous = device.client, inbox_key(device.client), device.last or 0
  write('ZADD', key, digits(place), digits(place) .. ':' .. item[2] .. ':' .. item[3] .. ':' .. item[1])
  if config.shared then set(device, 'last', place) end
  if item[3] == '' and item[4] then index(item[4], 'E' .. digits(place) .. ':' .. client) end
  count_entries(device, 1, item[2])
  local survives = true
  while device.entries and (device.entries > config.inbox_entries or device.bytes > config.inbox_bytes) do
    local member = call('ZRANGE', key, 0, 0)[1]
    if not member then break end
    local oldest, _, push = parse_entry(member)
    remove_entries(device, { member })
    survives = survives and oldest ~= place
    dropped = dropped + 1
    if push ~= '' then mark(push, 'x', device.number, client, '{"reason":"inbox_full"}') end
  end
  if not survives then return end
  announce('I', notice, device.owner or '0', previous, place)
  if config.shared and device.owner then note(device.owner, client, place) end
end

-- Returns how many of these places there were. Each may be named more than once.
local function remove_from_inbox(device, places)
  local members, seen = {}, {}
  if not device.entries then return 0 end
  for _, place in ipairs(places) do
    local member = not seen[place] and call('ZRANGEBYSCORE', inbox_key(device.client), place, place)[1]
    seen[place] = true
    if member then members[#members + 1] = member end
  end
  remove_entries(device, members)
  return #members
end

-- What ends with a session: all that are no pushes.
local function purge_publishes(device)
  if not device.entries then return end
  local members = {}
  for _, member in ipairs(call('ZRANGE', inbox_key(device.client), 0, -1)) do
    local _, _, push = parse_entry(member)
    if push == '' then members[#members + 1] = member end
  end
  remove_entries(device, members)
end

-- Forgets a device without a session whose inbox is empty, unless it is registered.
local function forget_idle(device)
  if device.expiry or device.pushes or device.entries then return false end
  if call('HEXISTS', DEVICE_ROWS, device.client) == 1 then return false end
  write('DEL', device_key(device.client))
  devices[device.client], changed_devices[device.client] = false, nil
  return true
end
