-- Devices: a hash `s:CLIENT` with short fields, so that it stays a listpack.
--   o number; e epoch; g generation of the connection that is up
--   b bytes of the inbox, i its entries, l the last one of its normal lane, H and L those of its high and low lane as `ENTRIES:LAST`: absent if empty
--   stored session: x expiry in seconds, a when it ends, z the hour in whose list it is, C cursors, f<filter> subscription, h the node that had
--   it may still hand it over, d when its connection ended, unless that is `a` less `x`
--   connected without one: p pushes to all when the number was given, k the number is known to a push
--   q its node was given up and may serve it all the same
--   j it remembers something of campaigns, in the hash `j` by client
--   v there is more in `x:CLIENT`, which holds what is long and rare: u unfinished exchanges, A<log> what is done above a cursor, c cursors that do
--   not fit; and, with or without v, r<packet id> received exchanges
-- A script reads a device once, and writes what it changed of it at the end.
local NUMBERS_IN_CHUNK = 65536

local function device_key(client) return K .. 's:' .. client end
local function extra_key(client) return K .. 'x:' .. client end

local FIELDS = {
  number = 'o', epoch = 'e', owner = 'g', bytes = 'b', entries = 'i', last = 'l', high = 'H', low = 'L', expiry = 'x', ends_at = 'a', listed = 'z', cursors = 'C',
  may_hand_over = 'h', may_be_served = 'q', left_at = 'd', pushes = 'p', known = 'k', has_extra = 'v', has_memory = 'j',
}
local IS_TEXT = { owner = true, cursors = true, high = true, low = true }
local NAMES, SHORT = {}, {}
for name, field in pairs(FIELDS) do
  NAMES[#NAMES + 1] = name
  SHORT[#SHORT + 1] = field
end

local devices, changed_devices = {}, {}

local function new_device(client)
  local device = { client = client, changes = {} }
  devices[client] = device
  return device
end

local function load(client)
  local device = devices[client]
  if device == nil then
    local row = call('HMGET', device_key(client), unpack(SHORT))
    device = new_device(client)
    for place, name in ipairs(NAMES) do
      local value = row[place]
      if value then device[name] = IS_TEXT[name] and value or tonumber(value) end
    end
    if not device.number then device = false end
    devices[client] = device
  end
  return device or nil
end

-- `value`: nil removes it.
local function set(device, name, value)
  if device[name] == value then return repeats() end
  device[name] = value
  device.changes[FIELDS[name]] = value == nil and '' or IS_TEXT[name] and value or digits(value)
  changed_devices[device.client] = device
end

local function save_devices()
  for client, device in pairs(changed_devices) do
    local changed, gone = {}, {}
    for field, value in pairs(device.changes) do
      if value == '' then
        gone[#gone + 1] = field
      else
        changed[#changed + 1] = field
        changed[#changed + 1] = value
      end
    end
    if #changed > 0 then write('HSET', device_key(client), unpack(changed)) end
    if #gone > 0 then write('HDEL', device_key(client), unpack(gone)) end
  end
end

local function is_expired(device, now)
  return not device.owner and device.ends_at ~= nil and device.ends_at <= now
end

local function fence(client, epoch)
  local device = load(client)
  if device and (device.expiry or device.pushes) and device.epoch == epoch then return device end
end

-- Sets of devices: bitmaps in chunks. `s` stored sessions, `e` connected without one.
local function set_bit(set_name, number, bit)
  write('SETBIT', K .. 'b:' .. set_name .. ':' .. math.floor(number / NUMBERS_IN_CHUNK), number % NUMBERS_IN_CHUNK, bit)
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

-- Who is connected through which node, so that the end of a node finds them; `gs` are those that have anybody.
local OWNERS = K .. 'gs'
local owners_known, owners_left = {}, {}
local function connected_key(owner) return K .. 'g:' .. owner end
local function set_owner(device, owner)
  local before = device.owner
  if before == owner then return repeats() end
  if before then
    write('SREM', connected_key(before), device.client)
    owners_left[before] = true
  end
  if owner then
    write('SADD', connected_key(owner), device.client)
    if not owners_known[owner] then write('SADD', OWNERS, owner) end
    owners_known[owner] = true
    set(device, 'left_at', nil)
  end
  set(device, 'owner', owner)
end
local function save_owners()
  for owner in pairs(owners_left) do
    if call('EXISTS', connected_key(owner)) == 0 then write('SREM', OWNERS, owner) end
  end
end

-- Sessions that are away, by the hour in which they end: lists `t:HOUR`, of which `t` has the beginnings. It takes a fifth of what the expiry index does,
-- where the sessions of an hour are put when it begins. A session is in one list, that of the earliest hour it was ever to end in; what that means
-- by then is looked up. One that is gone leaves its name there until that hour.
local HOURS = K .. 't'
local HOUR_MS = 3600000
local function end_at(device, ends_at, now)
  set(device, 'ends_at', ends_at)
  local hour = math.floor(ends_at / HOUR_MS)
  if hour * HOUR_MS <= now then
    index(ends_at, 'S' .. device.client)
  elseif not device.listed or device.listed > hour then
    if write('RPUSH', HOURS .. ':' .. digits(hour), device.client) == 1 then
      write('ZADD', HOURS, digits(hour * HOUR_MS), digits(hour))
    end
    set(device, 'listed', hour)
  end
end
local function end_no_more(device)
  if not device.ends_at then return end
  unindex('S' .. device.client)
  set(device, 'ends_at', nil)
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

-- What a device remembers of campaigns: bytes of the push domain. Kept with its session or its row.
local MEMORIES = K .. 'j'
local function memory_of(device)
  return device.has_memory and call('HGET', MEMORIES, device.client) or false
end
local function set_memory(device, memory)
  if memory == '' then
    if device.has_memory then write('HDEL', MEMORIES, device.client) end
    set(device, 'has_memory', nil)
  elseif device.expiry or call('HEXISTS', DEVICE_ROWS, device.client) == 1 then
    write('HSET', MEMORIES, device.client, memory)
    set(device, 'has_memory', 1)
  end
end

local function forget_memory(device)
  if device.expiry or not device.has_memory or call('HEXISTS', DEVICE_ROWS, device.client) == 1 then return end
  set_memory(device, '')
end

-- Rows of campaigns (31) and of pushes that ended before their time (34): all nodes are told of them.
local TOLD_TABLES = { [31] = true, [34] = true }
