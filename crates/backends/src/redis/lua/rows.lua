-- Writing rows if they are still what was read, and reading them.
local remove_row

-- In a block of its own: a function of Lua has at most 200 locals.
do
local function parse_row(stored, now)
  local version, expires_at, value_at = string.match(stored, '^(%d+):(%d*):()')
  expires_at = tonumber(expires_at)
  if now and expires_at and expires_at <= now then return nil end
  return tonumber(version), value_at, expires_at
end

local function row_at(number, name, now)
  local stored = call('HGET', rows_key(number), name)
  if not stored then return nil end
  local version, value_at = parse_row(stored, now)
  return version, version and string.sub(stored, value_at)
end

-- Whose the number of a registered device is: hashes `o:PART` of NUMBERS_TOGETHER, which Redis keeps as lists. And cohorts: sets `L:PART:NAME` of numbers within
-- the part, so few that Redis keeps them as arrays of two bytes each; the counters `L` say how many are in a cohort.
local cohorts = { NUMBERS_TOGETHER = 128, IN_PART = 512, added = {} }
cohorts.name_key = function(number) return K .. 'o:' .. math.floor(number / cohorts.NUMBERS_TOGETHER) end
cohorts.set = function(enrolment)
  local client, cohort, is_in = unpack(enrolment, 1, 3)
  local device = load(client)
  if not device or call('HEXISTS', DEVICE_ROWS, client) == 0 then return end
  local number = device.number
  local key = K .. 'L:' .. math.floor(number / cohorts.IN_PART) .. ':' .. cohort
  local changed = write(is_in and 'SADD' or 'SREM', key, number % cohorts.IN_PART)
  if changed == 1 then cohorts.added[cohort] = (cohorts.added[cohort] or 0) + (is_in and 1 or -1) end
end
cohorts.save = function()
  for cohort, added in pairs(cohorts.added) do
    if added ~= 0 and write('HINCRBY', K .. 'L', cohort, added) <= 0 then write('HDEL', K .. 'L', cohort) end
  end
  cohorts.added = {}
end

remove_row = function(number, name)
  if write('HDEL', rows_key(number), name) == 0 then return false end
  write('ZREM', names_key(number), name)
  unindex(row_subject(number, name))
  events.after_listener(number)
  if number == DEVICE_TABLE then
    local device = load(name)
    profile_changed(device, false)
    if device then
      write('HDEL', cohorts.name_key(device.number), device.number)
      forget_idle(device)
    end
  elseif TOLD_TABLES[number] then
    change('C', name)
  end
  return true
end

local function is_overfull(rows, number, bound)
  local added = 0
  for _, row in ipairs(rows) do
    if row[1] == number then
      local there = call('HEXISTS', rows_key(number), row[2]) == 1
      if row[3] and not there then added = added + 1 elseif not row[3] and there then added = added - 1 end
    end
  end
  return added > 0 and call('HLEN', rows_key(number)) + added > bound
end

-- expected: table, name, version (0: not there); rows: table, name, value or false, expiry or false; bounds: table, rows it may have; news: kind,
-- device or false, push or false, data or false; enrolments: device, cohort, whether it is in it
run.change = function(now, expected, rows, bounds, news, enrolments)
  for _, row in ipairs(expected) do
    if (row_at(row[1], row[2], now) or 0) ~= row[3] then return 'C' end
  end
  for _, bound in ipairs(bounds) do
    if is_overfull(rows, bound[1], bound[2]) then return { bound[1] } end
  end
  local version = next_place()
  -- Before a device loses its number.
  for _, enrolment in ipairs(enrolments) do
    if not enrolment[3] then cohorts.set(enrolment) end
  end
  for _, row in ipairs(rows) do
    local number, name, value, expires_at = row[1], row[2], row[3], row[4]
    if value then
      put_row(number, name, value, expires_at, version)
      if number == DEVICE_TABLE then
        local device = device_for_inbox(name)
        write('HSET', cohorts.name_key(device.number), device.number, name)
        profile_changed(device, value)
      end
      if TOLD_TABLES[number] then change('C', name, 'v', value) end
    else
      remove_row(number, name)
    end
  end
  for _, enrolment in ipairs(enrolments) do
    if enrolment[3] then cohorts.set(enrolment) end
  end
  cohorts.save()
  for _, each in ipairs(news) do events.tell(unpack(each, 1, 4)) end
  return version
end

expire.X = function(subject, now)
  local number, name = string.match(subject, '^(%d+):(.*)$')
  number = tonumber(number)
  local stored = call('HGET', rows_key(number), name)
  if not stored or parse_row(stored, now) then return 0, true end
  remove_row(number, name)
  return 1, true
end

read.rows_at = function(now, keys)
  local found = {}
  for i, key in ipairs(keys) do
    local version, value = row_at(key[1], key[2], now)
    found[i] = version and { version, value } or false
  end
  return found
end

read.rows = function(now, number, prefix, after, limit)
  local first, last = '[' .. prefix, '+'
  if prefix == '' then first = '-' else last = '(' .. prefix .. '\255' end
  if after and after >= prefix then first = '(' .. after end
  local rows, full, add = page(limit)
  while true do
    local names = call('ZRANGEBYLEX', names_key(number), first, last, 'LIMIT', 0, 128)
    for _, name in ipairs(names) do
      local version, value = row_at(number, name, now)
      if version then
        if full() then return { rows, true } end
        add(#name + #value, name, version, value)
      end
      first = '(' .. name
    end
    if #names < 128 then return { rows, false } end
  end
end

read.count_rows = function(number) return call('HLEN', rows_key(number)) end

-- Only of devices that keep theirs: that of a connection without a session may be another device's next.
read.numbers = function(clients)
  local found = {}
  for i, client in ipairs(clients) do
    local row = call('HMGET', device_key(client), 'o', 'x', 'i', 'p')
    local keeps = row[1] and (row[2] or row[3] or not row[4] or call('HEXISTS', DEVICE_ROWS, client) == 1)
    found[i] = keeps and tonumber(row[1]) or false
  end
  return found
end

-- The numbers of devices in a cohort, of a stretch of parts; false: they are more than `most`.
read.cohort = function(cohort, most, first, parts)
  if tonumber(call('HGET', K .. 'L', cohort) or 0) > most then return { false, true } end
  local last, found = math.floor(counter('o') / cohorts.IN_PART), {}
  for part = first, math.min(last, first + parts - 1) do
    local members = call('SMEMBERS', K .. 'L:' .. part .. ':' .. cohort)
    if #members > 0 then found[#found + 1] = { part * cohorts.IN_PART, members } end
  end
  return { found, first + parts > last }
end

read.numbered = function(numbers)
  local found = {}
  for i, number in ipairs(numbers) do
    local client = call('HGET', cohorts.name_key(number), number)
    local version, value
    if client then version, value = row_at(DEVICE_TABLE, client) end
    found[i] = version and { client, version, value } or false
  end
  return found
end

read.numbers_end = function() return counter('o') end

read.sessions = function()
  local sessions = 0
  for chunk = 0, math.floor(counter('o') / NUMBERS_IN_CHUNK) do
    sessions = sessions + call('BITCOUNT', K .. 'b:s:' .. chunk) + call('BITCOUNT', K .. 'b:e:' .. chunk)
  end
  return sessions
end

campaigns = function()
  local found = {}
  for number in pairs(TOLD_TABLES) do
    for _, name in ipairs(call('ZRANGE', names_key(number), 0, -1)) do
      -- Also what has expired and is not swept yet: whoever reads it knows its time.
      local version, value = row_at(number, name)
      if version then found[#found + 1] = { name, value } end
    end
  end
  return found
end
end
