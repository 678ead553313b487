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

-- Removes what ends with a session, but neither cursors nor the device. Returns its filters.
local function end_session(device, parts)
  local client, filters, fields = device.client, {}, {}
  for number, filter in ipairs(parts.filters) do
    filters[number], fields[number] = filter[1], 'f' .. filter[1]
    filter_removed(client, filter[1])
  end
  remove_fields(device_key(client), fields)
  write('DEL', extra_key(client))
  set(device, 'has_extra', nil)
  purge_publishes(device)
  end_no_more(device)
  return filters
end

local function end_stored_session(device)
  local filters = end_session(device, parts_of(device))
  set_owner(device, nil)
  set_bit('s', device.number, 0)
  for _, name in ipairs({ 'epoch', 'expiry', 'cursors', 'may_hand_over', 'may_be_served', 'left_at', 'listed' }) do set(device, name, nil) end
  forget_idle(device)
  return filters
end

-- `is_lost`: its node was given up. It may live, and report under the number.
local function end_ephemeral(device, is_lost)
  set_owner(device, nil)
  set_bit('e', device.number, 0)
  purge_publishes(device)
  local number, is_unknown = device.number, not is_lost and not device.known and device.pushes == counter('pa')
  for _, name in ipairs({ 'epoch', 'pushes', 'known' }) do set(device, name, nil) end
  -- A number that no push knows, and under which nobody reports any more, may be given again.
  local is_forgotten = forget_idle(device)
  if is_forgotten and is_unknown then write('RPUSH', K .. 'fo', number) end
  if is_lost and not is_forgotten then set(device, 'may_be_served', 1) end
end

local FOR_EVER = 4294967295
local function session_end(now, expiry)
  if expiry ~= FOR_EVER then return now + expiry * 1000 end
end

local function disconnect(device, ends_at, now, may_be_served)
  set_owner(device, nil)
  set(device, 'may_be_served', may_be_served and 1 or nil)
  -- Most often the end of the session tells, and no device takes more room for it.
  local is_told = ends_at and ends_at == session_end(now, device.expiry)
  set(device, 'left_at', not is_told and now or nil)
  if ends_at then end_at(device, ends_at, now) else end_no_more(device) end
end

-- When the connection ended of a device with a session that is not connected; false: an earlier version let go of it.
local function left_at(device)
  local at = device.left_at or device.ends_at and device.ends_at - device.expiry * 1000
  return at and at > 0 and at or false
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
  -- A client that is back before its will's delay has passed has nothing to be sorry for, if its session goes on. Without a delay it never is before that,
  -- whatever the clocks of two nodes say.
  local is_due = before.delay == 0 or before.due and before.due <= now
  if goes_on and not is_due then return false end
  before.due = now
  write('HSET', OWED, before.id .. client, format_will(before))
  if config.shared then index(now + PATIENCE_MS, 'O' .. before.id .. client) end
  return before.record
end

local run = {}

run.claim = function(client, owner, now, clean_start, expiry, will)
  local device = load(client)
  local is_new = device == nil
  local had = not is_new and device.expiry ~= nil
  local was_ephemeral = device ~= nil and device.pushes ~= nil
  local memory = device and memory_of(device) or false
  local previous = config.shared and device and device.owner and { device.owner, device.epoch } or false
  if previous and previous[1] ~= owner then note(previous[1], client, 0) end
  local epoch = next_place()
  -- A session that does not outlive its connection ends when another one takes its place.
  local goes_on = had and not clean_start and not is_expired(device, now) and not (device.owner and device.expiry == 0)
  local owed = replace_will(client, will, goes_on, now)
  local cursor, parts, ended = nil, nil, {}
  if had then
    parts = parts_of(device)
    -- The place in the push log is the device's, unless the device itself had expired.
    if goes_on or not is_expired(device, now) then cursor = push_cursor(parts) end
    if goes_on then end_no_more(device) else ended = end_session(device, parts) end
  end
  local begins = cursor == nil
  cursor = cursor or { 0, digits(end_of(0)), '' }
  if is_new then
    device = new_device(client)
    set(device, 'number', take_number())
  elseif expiry == 0 and not goes_on and (not was_ephemeral or previous and previous[1] ~= owner) then
    -- It has a row for other reasons, or the node before may report under the number after it was let go of.
    set(device, 'known', 1)
  end
  set(device, 'epoch', epoch)
  set(device, 'may_be_served', nil)
  if expiry > 0 or goes_on then
    set(device, 'expiry', expiry)
    set(device, 'pushes', nil)
    set(device, 'known', nil)
    set(device, 'may_hand_over', previous and previous[1] ~= owner and 1 or nil)
    if not goes_on then
      set_cursors(device, { [0] = tonumber(cursor[2]) })
      if cursor[3] ~= '' then
        write('HSET', extra_key(client), 'A0', cursor[3])
        set(device, 'has_extra', 1)
      end
    end
    if not had then set_bit('s', device.number, 1) end
    if was_ephemeral then set_bit('e', device.number, 0) end
  else
    if had then
      set_bit('s', device.number, 0)
      for _, name in ipairs({ 'expiry', 'cursors', 'may_hand_over' }) do set(device, name, nil) end
      forget_memory(device)
    end
    if not was_ephemeral then
      set(device, 'pushes', counter('pa'))
      set_bit('e', device.number, 1)
    end
  end
  set_owner(device, owner)
  local ends = {}
  for partition = 1, config.partitions do ends[partition] = end_of(partition) end
  local resumed = goes_on and { parts.filters, parts.cursors, parts.unfinished, parts.received }
  events.tell(events.connected, client)
  return {
    epoch, device.number, resumed, ended, owed, cursor, ends, lanes_of(device), previous,
    not is_new and profile_of(client),
    counter('h'), memory, begins,
  }
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
      set(device, 'may_hand_over', nil)
      local cursors = cursors_of(device)
      for partition = 1, config.partitions do cursors[partition] = cursors[partition] or end_of(partition) end
      set_cursors(device, cursors)
      -- Another session's subscription may have made the filter one to keep messages for, and not all nodes know that yet.
      if config.shared then known = counter('h') end
    end
  end
  if #inbox > 0 then
    for number, item in ipairs(inbox) do append_to_inbox(device_for_inbox(client), next_place(), item, number - 1) end
  end
  return known
end

local SETTLED = {
  b = '{"reason":"too_large"}', f = '{"reason":"frequency_cap"}', q = '{"reason":"quiet_hours"}', p = '{"reason":"local_time_past"}',
}
local function receive(client, number, receipts, settled)
  for _, push in ipairs(receipts) do mark(push, 'd', number_in(push, client, number), client) end
  for _, entry in ipairs(settled) do mark(entry[1], entry[2], number_in(entry[1], client, number), client, SETTLED[entry[2]]) end
end

-- cursors: log, done, done above; unfinished: false, '' for none, or a record
local function save(device, cursors, unfinished, inbox_done, memory)
  remove_from_inbox(device, inbox_done)
  if memory then set_memory(device, memory) end
  if device.pushes then return end
  local extra, long, gone = extra_key(device.client), {}, {}
  local keep = function(field, value)
    if value then
      long[#long + 1] = field
      long[#long + 1] = value
    else
      gone[#gone + 1] = field
    end
  end
  if cursors then
    local places = {}
    for _, cursor in ipairs(cursors) do
      places[cursor[1]] = tonumber(cursor[2])
      keep('A' .. cursor[1], cursor[3] ~= '' and cursor[3])
    end
    -- The place in the push log is the device's; leaving it out does not lose it.
    places[0] = places[0] or cursors_of(device)[0]
    set_cursors(device, places)
    if device.cursors ~= '+' then keep('c') end
  end
  if unfinished then keep('u', unfinished ~= '' and unfinished) end
  if #long > 0 then write('HSET', extra, unpack(long)) end
  if device.has_extra and #gone > 0 then write('HDEL', extra, unpack(gone)) end
  if #long > 0 then
    set(device, 'has_extra', 1)
  elseif cursors and unfinished and device.cursors ~= '+' then
    set(device, 'has_extra', nil)
  end
end

-- With the first that it saves, the session is what its owner says: what the node that had it before still has to say comes too late.
run.progress = function(client, epoch, number, cursors, unfinished, inbox_done, receipts, settled, memory)
  -- A receipt is a fact, whoever brings it.
  receive(client, number, receipts, settled)
  local device = fence(client, epoch)
  if not device then return 'F' end
  if cursors or unfinished then set(device, 'may_hand_over', nil) end
  save(device, cursors, unfinished, inbox_done, memory)
  return true
end

-- The same from the node that had the client before this epoch, as long as its owner has saved nothing.
run.hand_over = function(client, epoch, number, cursors, unfinished, inbox_done, receipts, settled, memory)
  receive(client, number, receipts, settled)
  local device = fence(client, epoch)
  if not device or device.expiry and not device.may_hand_over then return 'F' end
  set(device, 'may_hand_over', nil)
  save(device, cursors, unfinished, inbox_done, memory)
  return true
end

run.release = function(client, epoch, number, cursors, unfinished, inbox_done, receipts, settled, memory, ends_at, now, will_at)
  receive(client, number, receipts, settled)
  local device = fence(client, epoch)
  if not device then return 'F' end
  set(device, 'may_hand_over', nil)
  save(device, cursors, unfinished, inbox_done, memory)
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
    disconnect(device, ends_at, now)
  end
  events.tell(events.disconnected, client)
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
  end_no_more(device)
  set(device, 'may_be_served', nil)
  set_owner(device, owner)
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
        end_ephemeral(device, true)
      elseif expiry == 0 then
        ended[#ended + 1] = { client, end_stored_session(device) }
        if load(client) then set(device, 'may_be_served', 1) end
      else
        disconnect(device, ends_at, now, true)
      end
      events.tell(events.disconnected, client, nil, '{"reason":"node_lost"}')
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
