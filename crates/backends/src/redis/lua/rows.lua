-- Writing rows if they are still what was read, and reading them.
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

local function row_subject(number, name) return 'X' .. number .. ':' .. name end

local function remove_row(number, name)
  if write('HDEL', rows_key(number), name) == 0 then return false end
  write('ZREM', names_key(number), name)
  unindex(row_subject(number, name))
  if number == DEVICE_TABLE then
    local device = load(name)
    profile_changed(device, false)
    if device then forget_idle(device) end
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

-- expected: table, name, version (0: not there); rows: table, name, value or false, expiry or false; bounds: table, rows it may have
run.change = function(now, expected, rows, bounds)
  for _, row in ipairs(expected) do
    if (row_at(row[1], row[2], now) or 0) ~= row[3] then return 'C' end
  end
  for _, bound in ipairs(bounds) do
    if is_overfull(rows, bound[1], bound[2]) then return { bound[1] } end
  end
  local version = next_place()
  for _, row in ipairs(rows) do
    local number, name, value, expires_at = row[1], row[2], row[3], row[4]
    if value then
      write('HSET', rows_key(number), name, digits(version) .. ':' .. (expires_at and digits(expires_at) or '') .. ':' .. value)
      write('ZADD', names_key(number), 0, name)
      if expires_at then index(expires_at, row_subject(number, name)) else unindex(row_subject(number, name)) end
      if number == DEVICE_TABLE then profile_changed(device_for_inbox(name), value) end
      if TOLD_TABLES[number] then change('C', name, 'v', value) end
    else
      remove_row(number, name)
    end
  end
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
