-- Answers to queries. A page ends after about this many bytes, but has at least one entry.
local PAGE_BYTES = 1048576
local read = {}

local function page(limit)
  local entries, bytes = {}, 0
  local full = function() return #entries >= limit or bytes >= PAGE_BYTES end
  local add = function(size, ...)
    entries[#entries + 1] = { ... }
    bytes = bytes + size
  end
  return entries, full, add
end

-- Visits a stream after a place, without reading more than it needs at once.
local function each_entry(key, after, visit)
  local from = '(' .. stream_id(after)
  while true do
    local entries = call('XRANGE', key, from, '+', 'COUNT', 32)
    for _, entry in ipairs(entries) do
      if not visit(place_of(entry[1]), fields_of(entry[2])) then return false end
    end
    if #entries < 32 then return true end
    from = '(' .. entries[#entries][1]
  end
end

local function log_page(log, after, limit)
  local entries, full, add = page(limit)
  local at_end = each_entry(log_key(log), math.max(after, counter('t' .. log)), function(place, fields)
    if full() then return false end
    add(#fields.m, place, fields.m)
    return true
  end)
  return entries, at_end
end

local function read_to(log, after, entries, at_end)
  if at_end then return math.max(after, counter('e' .. log)) end
  return #entries > 0 and entries[#entries][1] or after
end

read.log = function(log, after, limit)
  local entries, at_end = log_page(log, after, limit)
  return { entries, read_to(log, after, entries, at_end), after < counter('t' .. log) }
end

read.matching = function(log, filters, after, limit)
  local start = math.max(after, counter('t' .. log))
  local seen, places, at_end = {}, {}, true
  filters[#filters + 1] = ''
  for _, filter in ipairs(filters) do
    -- The first of the union are among the first of each.
    local found = call('ZRANGEBYSCORE', posting_key(log, filter), '(' .. digits(start), '+inf', 'LIMIT', 0, limit + 1)
    for number, place in ipairs(found) do
      if number > limit then
        at_end = false
      elseif not seen[place] then
        seen[place] = true
        places[#places + 1] = tonumber(place)
      end
    end
  end
  table.sort(places)
  local entries, full, add = page(limit)
  for _, place in ipairs(places) do
    if full() then
      at_end = false
      break
    end
    local entry = call('XRANGE', log_key(log), stream_id(place), stream_id(place))[1]
    if entry then
      local message = fields_of(entry[2]).m
      add(#message, place, message)
    end
  end
  return { entries, read_to(log, after, entries, at_end), after < counter('t' .. log) }
end

-- An inbox record, with the message that several devices share.
local function inbox_item(member)
  local place, bytes, push, at = parse_entry(member)
  return place, bytes, string.sub(member, at), push
end

read.inbox = function(client, lane, after, limit)
  local entries, full, add = page(limit)
  local row = call('HMGET', device_key(client), FIELDS.entries, FIELDS.high, FIELDS.low)
  local lanes = lanes_of({ entries = tonumber(row[1] or 0), high = row[2], low = row[3] })
  local from = '(' .. digits(after)
  while true do
    local members = call('ZRANGEBYSCORE', inbox_key(client, lane), from, '+inf', 'LIMIT', 0, 32)
    for _, member in ipairs(members) do
      if full() then return { entries, true, lanes } end
      local place, bytes, record, push = inbox_item(member)
      add(bytes, place, record, push ~= '' and call('HGET', push_key(push), 'm') or false)
      from = '(' .. digits(place)
    end
    if #members < 32 then return { entries, false, lanes } end
  end
end

-- places: false for the inbox, or a log's number; and the place
read.entries = function(client, places)
  local found = {}
  for number, where in ipairs(places) do
    local log, place = where[1], where[2]
    if log then
      local entry = call('XRANGE', log_key(log), stream_id(place), stream_id(place))[1]
      if entry then found[#found + 1] = { number - 1, fields_of(entry[2]).m, false, false } end
    else
      for _, lane in ipairs(LANES) do
        local member = call('ZRANGEBYSCORE', inbox_key(client, lane), place, place)[1]
        if member then
          local _, _, record, push = inbox_item(member)
          found[#found + 1] = { number - 1, record, push ~= '' and call('HGET', push_key(push), 'm') or false, lane }
          break
        end
      end
    end
  end
  return found
end

read.session = function(client, partitions)
  config.partitions = partitions
  local device = load(client)
  if not device or not device.expiry then return false end
  local parts = parts_of(device)
  local cursor = push_cursor(parts) or { 0, digits(end_of(0)), '' }
  return {
    device.epoch, device.owner or false, { parts.filters, parts.cursors, parts.unfinished, parts.received }, cursor, lanes_of(device),
    memory_of(device),
  }
end

local function log_ends()
  local ends, row = {}, call('HGETALL', META)
  for i = 1, #row, 2 do
    local log = string.match(row[i], '^e(%d+)$')
    if log then ends[#ends + 1] = { tonumber(log), tonumber(row[i + 1]) } end
  end
  table.sort(ends, function(a, b) return a[1] < b[1] end)
  return ends
end

local function retained_messages()
  local retained = {}
  for _, value in ipairs(call('HVALS', RETAINED)) do retained[#retained + 1] = string.match(value, '^%d*:(.*)$') end
  return retained
end

-- Rows of all campaigns, and of pushes that ended before their time.
local campaigns

read.kept = function() return { retained_messages(), log_ends(), campaigns() } end

read.profiles = function(clients)
  local profiles = {}
  for number, client in ipairs(clients) do profiles[number] = profile_of(client) end
  return { profiles, counter('h') }
end

read.snapshot = function()
  local members = {}
  local row = call('HGETALL', K .. 'sm')
  for i = 1, #row, 2 do members[#members + 1] = { row[i], row[i + 1] } end
  return { counter('h'), retained_messages(), all_filters(), members, log_ends(), server_ms, campaigns() }
end

read.changes = function(after, logs, mailbox, notes_after, limit)
  local more = false
  -- Who knows more than there is knows what the store has lost.
  local lost = after < counter('ht') or after > counter('h')
  local changes, changes_full, add_change = page(limit)
  if not lost and not each_entry(CHANGES, after, function(place, fields)
    if changes_full() then return false end
    local size = #fields.s + (fields.v and #fields.v or 0)
    add_change(size, place, fields.k, fields.s, fields.c or false, fields.v or false)
    return true
  end) then
    more = true
  end
  local news = {}
  for number, log in ipairs(logs) do
    local entries, at_end = log_page(log[1], log[2], limit)
    more = more or not at_end
    news[number] = { entries, counter('e' .. log[1]) < log[2] }
  end
  local notes, key = {}, K .. 'n:' .. mailbox
  local found = call('XRANGE', key, '(' .. stream_id(notes_after), '+', 'COUNT', limit + 1)
  for number, entry in ipairs(found) do
    local fields = entry[2]
    if number > limit then more = true else notes[number] = { place_of(entry[1]), fields[2], tonumber(fields[4]), tonumber(fields[6] or 0) } end
  end
  if call('XRANGE', key, '-', stream_id(notes_after), 'COUNT', 1)[1] then
    write('XTRIM', key, 'MINID', stream_id(notes_after + 1))
  end
  return { server_ms, changes, lost, news, notes, counter('nt' .. mailbox) > notes_after, call('SMEMBERS', K .. 'gs'), more }
end

read.report = function(push)
  local key = push_key(push)
  local row = call('HMGET', key, 'a', 'e', 'n', 'l', 'c', 'g', 'k', 'j')
  if not row[1] then return false end
  local targeted, delivered = tonumber(row[3]), 0
  local settled = {}
  for _, name in ipairs(REASONS) do settled[name] = 0 end
  local seen = { s = 0, k = 0, w = 0 }
  if row[4] == TO_ONE then
    local count = function(name) return call('HEXISTS', key, name) end
    delivered = count('d')
    for _, name in ipairs(delivered == 0 and REASONS or {}) do
      if count(name) == 1 then
        settled[name] = 1
        break
      end
    end
    for name in pairs(seen) do seen[name] = count(name) end
  elseif row[4] == TO_ALL then
    for chunk = 0, tonumber(row[5] or 0) - 1 do
      local set = function(name) return key .. ':' .. name .. ':' .. chunk end
      local common = function(...)
        if call('EXISTS', (...)) == 0 then return 0 end
        call('BITOP', 'AND', key .. ':common', set('t'), ...)
        local count = call('BITCOUNT', key .. ':common')
        call('DEL', key .. ':common')
        return count
      end
      if row[6] then targeted = targeted + call('BITCOUNT', set('t')) end
      delivered = delivered + common(set('d'))
      local rest = key .. ':rest'
      call('BITOP', 'OR', rest, set('t'))
      for number = 0, #REASONS do
        local name = number == 0 and 'd' or REASONS[number]
        if call('EXISTS', set(name)) == 1 then
          call('BITOP', 'AND', key .. ':common', rest, set(name))
          if number > 0 then settled[name] = settled[name] + call('BITCOUNT', key .. ':common') end
          call('BITOP', 'XOR', rest, rest, key .. ':common')
          call('DEL', key .. ':common')
        end
      end
      call('DEL', rest)
      for name in pairs(seen) do seen[name] = seen[name] + common(set(name)) end
    end
  else
    local got = {}
    for _, number in ipairs(call('SINTER', key .. ':t', key .. ':d')) do
      got[number] = true
      delivered = delivered + 1
    end
    for _, name in ipairs(REASONS) do
      for _, number in ipairs(call('SINTER', key .. ':t', key .. ':' .. name)) do
        if not got[number] then
          got[number] = true
          settled[name] = settled[name] + 1
        end
      end
    end
    for name in pairs(seen) do seen[name] = #call('SINTER', key .. ':t', key .. ':' .. name) end
  end
  local others = {}
  for _, name in ipairs(REASONS) do
    if name ~= 'x' and settled[name] > 0 then others[#others + 1] = { name, settled[name] } end
  end
  return {
    tonumber(row[1]), tonumber(row[2]), targeted, delivered, settled.x, row[6] and not row[7] or false, seen.s, seen.k, seen.w, others,
    row[8] or '',
  }
end

-- What the request was answered that used an idempotency key first; false: the key is free.
read.answered = function(key, body_hash, now)
  return first_answer(key, body_hash, now) or false
end

-- Bytes of messages, and whether there is a device: numbers are in use.
read.stored = function()
  local bytes, row = counter('ib') + counter('rb'), call('HGETALL', META)
  for i = 1, #row, 2 do
    if string.match(row[i], '^b%d+$') then bytes = bytes + tonumber(row[i + 1]) end
  end
  return bytes
end

-- The devices with a mark: their numbers, or bitmaps by chunk.
read.marked = function(push, name)
  local key, numbers, bitmaps = push_key(push), {}, {}
  local row = call('HMGET', key, 'l', 't', 'c', name)
  if row[1] == TO_ONE then
    if row[2] and row[4] then numbers[1] = tonumber(row[2]) end
  elseif row[1] == TO_ALL then
    for chunk = 0, tonumber(row[3] or 0) - 1 do bitmaps[chunk + 1] = call('GET', key .. ':' .. name .. ':' .. chunk) or '' end
  elseif row[1] then
    for place, number in ipairs(call('SMEMBERS', key .. ':' .. name)) do numbers[place] = tonumber(number) end
  end
  return { numbers, bitmaps }
end

read.series = function(push) return call('HGETALL', push_key(push) .. ':h') end

-- The greatest ids first.
read.pushes = function(before, limit)
  local found, from = {}, before and '(' .. before or '+'
  local ids = call('ZREVRANGEBYLEX', K .. 'u', from, '-', 'LIMIT', 0, limit + 1)
  for number, push in ipairs(ids) do
    local row = call('HMGET', push_key(push), 'a', 'e', 'j')
    if number > limit then return { found, true } end
    if row[1] then found[#found + 1] = { push, tonumber(row[1]), tonumber(row[2]), row[3] or '' } end
  end
  return { found, false }
end

read.events = function(after, limit)
  local found, full, add = page(limit)
  local trimmed, begun = counter('vt'), counter('vb')
  local last = math.max(counter('v'), begun)
  local at_end = each_entry(events.key, math.max(after, trimmed), function(place, fields)
    if full() then return false end
    add(64 + (fields.j and #fields.j or 0), events.parts(place, fields))
    return true
  end)
  local read_to = math.max(after, last)
  if not at_end then read_to = #found > 0 and found[#found][1] or after end
  return { found, read_to, last, after < math.max(trimmed, begun) }
end

-- Newest first. Looks at so many at most.
read.past = function(device, before, limit, look_at)
  local found, looked, from = {}, 0, before and '(' .. stream_id(before) or '+'
  while true do
    local entries = call('XREVRANGE', events.key, from, '-', 'COUNT', 128)
    for _, entry in ipairs(entries) do
      local place, fields = place_of(entry[1]), fields_of(entry[2])
      if #found >= limit or looked >= look_at then return { found, place + 1 } end
      looked = looked + 1
      if not device or fields.d == device then found[#found + 1] = { events.parts(place, fields) } end
      from = '(' .. entry[1]
    end
    if #entries < 128 then return { found, false } end
  end
end

-- What is known of a push at a device.
read.at_device = function(push, client, partitions)
  config.partitions = partitions
  local row = call('HMGET', push_key(push), 'a', 'e', 'o', 'l', 'g', 'k')
  if not row[1] then return false end
  local device, sets, passed, message, by = load(client), {}, false, false, false
  if device then
    for _, name in ipairs(SETS) do
      if is_marked(push, row[4], name, device.number) then sets[#sets + 1] = name end
    end
    by = call('HGET', push_key(push), 'b' .. digits(device.number))
  end
  if row[5] and row[3] then
    local place = row[3]
    local done, above = device and cursors_of(device)[0] or -1, call('HGET', extra_key(client), 'A0')
    passed = done >= tonumber(place) or string.find(',' .. (above or '') .. ',', ',' .. place .. ',', 1, true) ~= nil
    local entry = call('XRANGE', log_key(0), place .. '-0', place .. '-0')[1]
    message = entry and fields_of(entry[2]).m or false
  end
  return {
    tonumber(row[1]), tonumber(row[2]), row[5] and not row[6] or false, device and device.number or false, sets,
    device and device.owner and true or false, passed, message, profile_of(client) or false, by,
    device and device.expiry and not device.owner and left_at(device) or false,
  }
end

-- What waits for a device that is away, false if it is not. Of the push log a page is looked at, of at most so many entries.
read.away = function(client, partitions, now, limit)
  config.partitions = partitions
  local device = load(client)
  if not device or not device.expiry or device.owner or is_expired(device, now) then return false end
  local done = cursors_of(device)[0] or end_of(0)
  local above = ',' .. (call('HGET', extra_key(client), 'A0') or '') .. ','
  local entries, at_end = log_page(0, done, limit)
  local behind = 0
  for _, entry in ipairs(entries) do
    if not string.find(above, ',' .. digits(entry[1]) .. ',', 1, true) then behind = behind + 1 end
  end
  return { left_at(device), device.ends_at or false, at_end and behind, device.entries or 0 }
end

read.registered = function() return call('SMEMBERS', K .. 'used') end

-- A write behind everything that is there: replicas that have it have all up to the place that is answered. One that a full server takes, too.
read.mark = function()
  local key, KEPT_MS = K .. 'y', 86400000
  if call('PEXPIRE', key, KEPT_MS) == 0 then call('SET', key, '', 'PX', KEPT_MS) end
  return counter('q')
end
