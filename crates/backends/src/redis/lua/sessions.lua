-- Wills: a hash `w` client -> `ID:DUE:DELAY:RECORD`, DUE empty while the connection is up; `W` ID CLIENT -> the same, of wills that a claim gave
-- out. Among nodes, one that was due for a while and is still there is handed out again.
local WILLS, OWED = K .. 'w', K .. 'W'
local PATIENCE_MS = 5000
local function parse_will(value)
  local id, due, delay, record = string.match(value, '^(%x+):(%d*):(%d+):(.*)$')
  return { id = id, due = tonumber(due), delay = tonumber(delay), record = record }
end
local function format_will(will)
  return will.id .. ':' .. (will.due and digits(will.due) or '') .. ':' .. digits(will.delay) .. ':' .. will.record
end
local function will_of(client)
  local value = call('HGET', WILLS, client)
  return value and parse_will(value) or nil
end
local function drop_will(client)
  if write('HDEL', WILLS, client) == 1 and config.shared then unindex('W' .. client) end
end
-- `ends_at`: when the session ends, which makes the will due too.
local function set_due(client, will, due, ends_at)
  will.due = due
  write('HSET', WILLS, client, format_will(will))
  if config.shared then index(math.min(due, ends_at or due) + PATIENCE_MS, 'W' .. client) end
end

-- Removes what ends with a session, but not the device. Returns its filters.
local function end_session(client, parts)
  local filters = {}
  for _, filter in ipairs(parts.filters) do
    filters[#filters + 1] = filter[1]
    filter_removed(client, filter[1])
  end
  remove_fields(device_key(client), parts.names)
  write('DEL', extra_key(client))
  purge_publishes(client)
  unindex('S' .. client)
  return filters
end

local function end_stored_session(device)
  local client = device.client
  local filters = end_session(client, parts_of(client))
  set_owner(device, nil)
  set_bit('s', device.number, 0)
  write('HDEL', device_key(client), 'e', 'g', 'x', 'a', 'q')
  forget_idle(client)
  return filters
end

local function end_ephemeral(device)
  local client = device.client
  set_owner(device, nil)
  set_bit('e', device.number, 0)
  write('HDEL', device_key(client), 'e', 'g', 'p', 'k')
  purge_publishes(client)
  -- A number that no push knows may be given again.
  if forget_idle(client) and not device.known and device.pushes == counter('pa') then
    write('RPUSH', K .. 'fo', device.number)
  end
end

local function disconnect(device, ends_at, may_be_served)
  local key = device_key(device.client)
  set_owner(device, nil)
  write('HDEL', key, 'g', 'q')
  if may_be_served then write('HSET', key, 'q', 1) end
  if ends_at then
    write('HSET', key, 'a', digits(ends_at))
    index(ends_at, 'S' .. device.client)
  else
    write('HDEL', key, 'a')
    unindex('S' .. device.client)
  end
end

local FOR_EVER = 4294967295
local function session_end(now, expiry)
  if expiry ~= FOR_EVER then return now + expiry * 1000 end
end

local function replace_will(client, will, goes_on, now)
  local before = will_of(client)
  if before then unindex('W' .. client) end
  if will then
    write('HSET', WILLS, client, format_will({ id = will[1], delay = will[2], record = will[3] }))
  elseif before then
    drop_will(client)
  end
  if not before then return false end
  -- A client that is back before its will's delay has passed has nothing to be sorry for, if its session goes on.
  local is_due = before.due and before.due <= now or not before.due and before.delay == 0
  if goes_on and not is_due then return false end
  before.due = now
  write('HSET', OWED, before.id .. client, format_will(before))
  if config.shared then index(now + PATIENCE_MS, 'O' .. before.id .. client) end
  return before.record
end

local run = {}

run.claim = function(client, owner, now, clean_start, expiry, will)
  local device = load(client)
  local had = device ~= nil and device.expiry ~= nil
  local was_ephemeral = device ~= nil and device.pushes ~= nil
  local previous = config.shared and device and device.owner and { device.owner, device.epoch } or false
  if previous and previous[1] ~= owner then note(previous[1], client, 0) end
  local epoch = next_place()
  -- A session that does not outlive its connection ends when another one takes its place.
  local goes_on = had and not clean_start and not is_expired(device, now) and not (device.owner and device.expiry == 0)
  local owed = replace_will(client, will, goes_on, now)
  local cursor, parts, ended = nil, nil, {}
  if had then
    parts = parts_of(client)
    -- The place in the push log is the device's, unless the device itself had expired.
    if goes_on or not is_expired(device, now) then cursor = push_cursor(parts) end
    if goes_on then
      if device.ends_at then unindex('S' .. client) end
    else
      ended = end_session(client, parts)
    end
  end
  cursor = cursor or { 0, digits(counter('e0')), '' }
  local key = device_key(client)
  local is_new = not device
  device = device or { client = client, number = take_number() }
  if expiry > 0 or goes_on then
    write('HSET', key, 'o', device.number, 'e', digits(epoch), 'g', owner, 'x', expiry)
    write('HDEL', key, 'a', 'p', 'k', 'h', 'q')
    if previous and previous[1] ~= owner then write('HSET', key, 'h', 1) end
    if not goes_on then
      write('HSET', key, 'C0', cursor[2])
      if cursor[3] ~= '' then write('HSET', extra_key(client), 'A0', cursor[3]) end
    end
    if not had then set_bit('s', device.number, 1) end
    if was_ephemeral then set_bit('e', device.number, 0) end
  else
    if had then
      set_bit('s', device.number, 0)
      write('HDEL', key, 'x', 'a', 'q')
    end
    local pushes = was_ephemeral and device.pushes or counter('pa')
    write('HSET', key, 'o', device.number, 'e', digits(epoch), 'g', owner, 'p', digits(pushes))
    if not was_ephemeral then
      if not is_new then write('HSET', key, 'k', 1) end
      set_bit('e', device.number, 1)
    end
  end
  set_owner(device, owner)
  local ends = {}
  for partition = 1, config.partitions do ends[partition] = counter('e' .. partition) end
  local resumed = goes_on and { parts.filters, parts.cursors, parts.unfinished, parts.received }
  return {
    epoch, device.number, resumed, ended, owed, cursor, ends, call('EXISTS', inbox_key(client)) == 1, previous,
    not is_new and profile_of(client),
    counter('h'),
  }
end

-- From here on the session is what its owner says: what the node that had it before still has to say comes too late.
local function end_hand_over(device)
  if device.may_hand_over then write('HDEL', device_key(device.client), 'h') end
end

run.subscribe = function(client, epoch, add, remove, inbox)
  local device, known = fence(client, epoch), true
  if not device then return 'F' end
  if device.expiry then
    local key = device_key(client)
    for _, filter in ipairs(remove) do
      if write('HDEL', key, 'f' .. filter) == 1 then filter_removed(client, filter) end
    end
    for _, subscription in ipairs(add) do
      local filter, options, member = subscription[1], subscription[2], subscription[3]
      local is_new = write('HSET', key, 'f' .. filter, options) == 1
      if is_new or is_shared(filter) then filter_added(client, filter, member) end
    end
    if #add > 0 then
      end_hand_over(device)
      for partition = 1, config.partitions do
        write('HSETNX', key, 'C' .. partition, digits(counter('e' .. partition)))
      end
      -- Another session's subscription may have made the filter one to keep messages for, and not all nodes know that yet.
      if config.shared then known = counter('h') end
    end
  end
  if #inbox > 0 then
    device = device_for_inbox(client)
    for number, item in ipairs(inbox) do append_to_inbox(device, next_place(), item, number - 1) end
  end
  return known
end

local function receive(number, receipts)
  for _, push in ipairs(receipts) do
    local row = call('HMGET', push_key(push), 'l', 'g')
    if row[1] then mark(push, row[1], 'd', number) end
    -- Whoever counts those that a push to an audience is for may see the device otherwise than the node that sent it.
    if row[2] then
      mark(push, row[1], 't', number)
      raise_chunks(push, math.floor(number / NUMBERS_IN_CHUNK))
    end
  end
end

-- cursors: log, done, done above; unfinished: false, '' for none, or a record
local function save(device, cursors, unfinished, inbox_done)
  local client, removed = device.client, 0
  for _, place in ipairs(inbox_done) do removed = removed + remove_from_inbox(client, place) end
  if device.pushes then return end
  local key, extra = device_key(client), extra_key(client)
  if cursors then
    local saved, gone = {}, {}
    for _, cursor in ipairs(cursors) do
      saved[cursor[1]] = true
      write('HSET', key, 'C' .. cursor[1], cursor[2])
      if cursor[3] ~= '' then
        write('HSET', extra, 'A' .. cursor[1], cursor[3])
      else
        gone[#gone + 1] = 'A' .. cursor[1]
      end
    end
    remove_fields(extra, gone)
    if #cursors <= config.partitions then
      local left_out = {}
      for partition = 1, config.partitions do
        if not saved[partition] then left_out[#left_out + 1] = 'C' .. partition end
      end
      remove_fields(key, left_out)
    end
  end
  if unfinished == '' then
    write('HDEL', extra, 'u')
  elseif unfinished then
    write('HSET', extra, 'u', unfinished)
  end
end

run.progress = function(client, epoch, number, cursors, unfinished, inbox_done, receipts)
  -- A receipt is a fact, whoever brings it.
  receive(number, receipts)
  local device = fence(client, epoch)
  if not device then return 'F' end
  if cursors or unfinished then end_hand_over(device) end
  save(device, cursors, unfinished, inbox_done)
  return true
end

-- The same from the node that had the client before this epoch, as long as its owner has saved nothing.
run.hand_over = function(client, epoch, number, cursors, unfinished, inbox_done, receipts)
  receive(number, receipts)
  local device = fence(client, epoch)
  if not device or device.expiry and not device.may_hand_over then return 'F' end
  end_hand_over(device)
  save(device, cursors, unfinished, inbox_done)
  return true
end

run.release = function(client, epoch, number, cursors, unfinished, inbox_done, receipts, ends_at, now, will_at)
  receive(number, receipts)
  local device = fence(client, epoch)
  if not device then return 'F' end
  end_hand_over(device)
  save(device, cursors, unfinished, inbox_done)
  local will = will_of(client)
  if will and will_at then
    set_due(client, will, will_at, ends_at)
  elseif will then
    drop_will(client)
  end
  if device.pushes then
    end_ephemeral(device)
  elseif ends_at and ends_at <= now then
    end_stored_session(device)
  else
    disconnect(device, ends_at)
  end
  return true
end

run.forget_received = function(client, epoch, packet_id)
  if not fence(client, epoch) then return 'F' end
  write('HDEL', extra_key(client), 'r' .. packet_id)
  return true
end

run.drop_will = function(client)
  drop_will(client)
  return true
end

run.restamp = function(client, epoch, owner)
  local device = fence(client, epoch)
  if not device then return 'F' end
  if device.ends_at then
    write('HDEL', device_key(client), 'a')
    unindex('S' .. client)
  end
  if device.may_be_served then write('HDEL', device_key(client), 'q') end
  set_owner(device, owner)
  write('HSET', device_key(client), 'g', owner)
  local will = will_of(client)
  if will and will.due then
    will.due = nil
    write('HSET', WILLS, client, format_will(will))
    unindex('W' .. client)
  end
  return true
end

-- Ends the connections of a node that is gone, some at a time.
run.void = function(owner, now, limit)
  local clients = call('SRANDMEMBER', connected_key(owner), limit + 1)
  local wills, ended = {}, {}
  for number = 1, math.min(#clients, limit) do
    local client = clients[number]
    local device = load(client)
    if device and device.owner == owner then
      local expiry = device.expiry or 0
      local ends_at = session_end(now, expiry)
      local will = will_of(client)
      if will and not will.due then
        local due = now + will.delay * 1000
        set_due(client, will, ends_at and math.min(due, ends_at) or due)
        wills[#wills + 1] = { client, will.record, will.due, ends_at or false, false }
      end
      if device.pushes then
        end_ephemeral(device)
      elseif expiry == 0 then
        ended[#ended + 1] = { client, end_stored_session(device) }
      else
        disconnect(device, ends_at, true)
      end
    else
      write('SREM', connected_key(owner), client)
    end
  end
  local more = #clients > limit
  if not more then
    write('DEL', K .. 'n:' .. owner)
    write('HDEL', META, 'nt' .. owner)
    write('SREM', K .. 'gs', owner)
  end
  return { wills, ended, more }
end
