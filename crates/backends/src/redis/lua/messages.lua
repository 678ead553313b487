-- Logs: a stream `l:LOG` by place with t the time of the append, m the message, f the filters that it is posted under; `p:LOG:FILTER` are
-- the postings. Of each log the counters e end, t trimmed to, b bytes.
local function log_key(log) return K .. 'l:' .. log end
local function posting_key(log, filter) return K .. 'p:' .. log .. ':' .. filter end

-- `changes`: the last change that must be known to judge whom the entry is for, or 0.
local function append_to_log(log, place, message, at, filters, changes)
  local packed = ''
  if #filters > 0 then
    packed = cmsgpack.pack(filters)
    for _, filter in ipairs(filters) do write('ZADD', posting_key(log, filter), digits(place), digits(place)) end
    write('XADD', log_key(log), stream_id(place), 't', digits(at), 'm', message, 'f', packed)
  else
    write('XADD', log_key(log), stream_id(place), 't', digits(at), 'm', message)
  end
  announce('L', log, counter('e' .. log), place, changes or 0)
  set_counter('e' .. log, place)
  set_counter('b' .. log, counter('b' .. log) + #message + #packed)
end

local function remove_from_log(log, entry)
  local fields = fields_of(entry[2])
  write('XDEL', log_key(log), entry[1])
  local place = place_of(entry[1])
  if fields.f then
    for _, filter in ipairs(cmsgpack.unpack(fields.f)) do write('ZREM', posting_key(log, filter), digits(place)) end
  end
  local bytes = counter('b' .. log) - #fields.m - (fields.f and #fields.f or 0)
  set_counter('b' .. log, math.max(bytes, 0))
  return place
end

-- Removes the oldest entries that are too old or too many, at most `limit`.
local function trim_log(log, now, limit)
  local removed = 0
  while true do
    local first = call('XRANGE', log_key(log), '-', '+', 'COUNT', 1)[1]
    if not first then
      if removed > 0 then
        write('DEL', log_key(log))
        set_counter('b' .. log, 0)
      end
      return removed
    end
    local too_old = now - tonumber(fields_of(first[2]).t) >= config.log_age
    if removed >= limit or not (too_old or counter('b' .. log) > config.log_bytes) then return removed end
    set_counter('t' .. log, remove_from_log(log, first))
    removed = removed + 1
  end
end

-- Retained messages: a hash `r` topic -> `EXPIRY:MESSAGE`.
local RETAINED = K .. 'r'
-- What they take is the counter rb.
local function count_retained(topic, bytes)
  add_to_counter('rb', bytes - call('HSTRLEN', RETAINED, topic))
end

local function retain(topic, message, expires_at)
  if not message then
    count_retained(topic, 0)
    if write('HDEL', RETAINED, topic) == 0 then return end
    unindex('T' .. topic)
    change('R', topic)
    return
  end
  local value = (expires_at and digits(expires_at) or '') .. ':' .. message
  count_retained(topic, #value)
  write('HSET', RETAINED, topic, value)
  if expires_at then index(expires_at, 'T' .. topic) else unindex('T' .. topic) end
  change('R', topic, 'v', message)
end

local function spend_will(client, id)
  local will = will_of(client)
  if will and will.id == id then
    return 'stored'
  elseif call('HEXISTS', OWED, id .. client) == 1 then
    return 'owed'
  end
end

-- received: client, epoch, packet id; spends: client, message id
run.publish = function(message, log, at, filters, inboxes, retained, topic, expires_at, received, spends)
  local spent = spends and spend_will(spends[1], spends[2])
  if spends and not spent then return 'N' end
  if received and not fence(received[1], received[2]) then return 'F' end
  if spent == 'stored' then
    drop_will(spends[1])
  elseif spent then
    write('HDEL', OWED, spends[2] .. spends[1])
    unindex('O' .. spends[2] .. spends[1])
  end
  -- Until PUBREL the identifier means the same exchange, so that whatever is there this is a repetition.
  if received and write('HSETNX', extra_key(received[1]), 'r' .. received[3], '') == 0 then return true end
  if log then append_to_log(log, next_place(), message, at, filters) end
  for number, inbox in ipairs(inboxes) do
    local device = load(inbox[1])
    if device and (device.expiry or device.pushes) then
      append_to_inbox(device_for_inbox(inbox[1]), next_place(), inbox[2], number - 1)
    end
  end
  if retained == 1 then retain(topic, message, expires_at) elseif retained == 2 then retain(topic) end
  return true
end

-- A push: a hash `P:ID` with a accepted, e expires, n targeted, o place, l for whom it is; of one for a device y its client, t its number, and d, x, r, s, k, w
-- as it is in these sets. b<number> is the push that took its place at a device. Others have sets: of one for all, c says how many chunks they have; of one for a few, m is the message that they share, and
-- the list `P:ID:c` says whose inboxes may hold it. One to an audience is one for all with g, and k once all whom it is for are counted: its n
-- means nothing. j is what its sender wants to find again; i, it is what the server
-- itself says.
local function target_all(push)
  local chunks = math.ceil(counter('o') / NUMBERS_IN_CHUNK)
  local targeted = 0
  for chunk = 0, chunks - 1 do
    local key = push_key(push) .. ':t:' .. chunk
    write('BITOP', 'OR', key, K .. 'b:s:' .. chunk, K .. 'b:e:' .. chunk)
    targeted = targeted + call('BITCOUNT', key)
  end
  set_counter('pa', counter('pa') + 1)
  return targeted, chunks
end

local IDEMPOTENCY = K .. 'k'
-- Ids of all pushes in order; the table of those whose end is to be told.
local PUSHES, OPEN_TABLE = K .. 'u', 42

local first_answer = function(key, body_hash, now)
  local used = call('HGET', IDEMPOTENCY, key)
  used = used and cmsgpack.unpack(used)
  if not used or used[5] <= now then return nil end
  if used[1] ~= body_hash then return 'K' end
  return { 'R', used[2], used[3], used[4] }
end

-- idempotency: key, hash of the body, expiry
-- rows: of a campaign, as of a change; it is no entry anywhere
run.accept = function(push, accepted_at, expires_at, clients, message, item, idempotency, to_audience, rows, info, watched, is_control)
  if idempotency then
    local answer = first_answer(idempotency[1], idempotency[2], accepted_at)
    if answer == 'K' then return answer end
    if answer then
      repeats()
      return answer
    end
  end
  local key = push_key(push)
  local known = call('HMGET', key, 'n', 'g')
  if known[1] then
    repeats()
    return { 'A', not known[2] and tonumber(known[1]) }
  end
  if rows then
    local version = run.change(unpack(rows))
    if type(version) ~= 'number' then return version end
  end
  local targeted, kind = clients and #clients, clients and (#clients == 1 and TO_ONE or TO_FEW) or TO_ALL
  local fields = { 'a', digits(accepted_at), 'e', digits(expires_at), 'l', kind }
  local function add(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  local function target(device)
    if kind == TO_ONE then
      add('t', device.number)
    else
      write('SADD', key .. ':t', device.number)
    end
  end
  if rows then
    for _, client in ipairs(clients or {}) do target(device_for_inbox(client)) end
    index(expires_at, 'P' .. push)
  elseif expires_at <= accepted_at then
    for _, client in ipairs(clients or {}) do
      local device = load(client)
      if device then
        if device.pushes then set(device, 'known', 1) end
        target(device)
      end
    end
    announce('T')
    index(expires_at + config.retention, 'R' .. push)
  else
    local place = next_place()
    add('o', digits(place))
    if kind == TO_ALL then
      append_to_log(0, place, message, accepted_at, {}, to_audience and counter('h'))
    elseif kind == TO_ONE then
      add('y', clients[1])
    elseif #clients > 0 then
      add('m', message)
      write('RPUSH', key .. ':c', unpack(clients))
    end
    for number, client in ipairs(clients or {}) do
      local device = device_for_inbox(client)
      target(device)
      append_to_inbox(device, place, item, number - 1)
    end
    index(expires_at, 'P' .. push)
  end
  if to_audience then
    -- Who it is for is added later. A number that was in use now is not given to another device.
    add('g', 1)
    set_counter('pa', counter('pa') + 1)
    targeted = false
  elseif kind == TO_ALL then
    local chunks
    targeted, chunks = target_all(push)
    add('c', chunks)
  end
  add('n', targeted or 0)
  if info ~= '' then add('j', info) end
  if is_control then add('i', 1) end
  write('HSET', key, unpack(fields))
  -- What the server itself says is in no list, and no event.
  if not is_control then write('ZADD', PUSHES, 0, push) end
  if not is_control then events.tell(events.accepted, nil, push, targeted and '{"targeted":' .. digits(targeted) .. '}') end
  -- Of a push to named devices each event tells.
  if not is_control and (watched or not clients and events.has_listeners()) then put_row(OPEN_TABLE, push, info, nil, next_place()) end
  if idempotency then
    local record = { idempotency[2], push, targeted, accepted_at, idempotency[3] }
    write('HSET', IDEMPOTENCY, idempotency[1], cmsgpack.pack(record))
    index(idempotency[3], 'I' .. idempotency[1])
  end
  return { 'A', targeted }
end

-- Some of the devices that a push to an audience is for: a bitmap of one chunk.
run.target = function(push, chunk, devices)
  local key = push_key(push)
  if call('HEXISTS', key, 'g') == 0 then return true end
  local set, added = key .. ':t:' .. chunk, key .. ':added'
  write('SET', added, devices)
  write('BITOP', 'OR', set, set, added)
  write('DEL', added)
  raise_chunks(push, chunk)
  return true
end

-- What a device tells of pushes. Of those that are for others, or not known any more, it has nothing to tell.
run.tell = function(client, reported, entries)
  for _, entry in ipairs(entries) do
    local push = entry[1]
    local number = number_in(push, client, reported)
    local row = call('HMGET', push_key(push), 'l', 'g', 'k')
    -- Whoever counts may not have come to the device yet. Later, only an acknowledgement adds one: it says that the push was sent to it.
    local is_for_it = row[2] and (not row[3] or is_about_to_be_marked(push, number)) or row[1] and is_marked(push, row[1], 't', number)
    if is_for_it then
      for _, name in ipairs(entry[2]) do mark(push, name, number, client, name == 'k' and entry[3] or nil) end
    end
  end
  return true
end

run.not_understood = function() return 'N' end

run.counted = function(push)
  local key = push_key(push)
  if call('HEXISTS', key, 'g') == 1 then write('HSET', key, 'k', 1) end
  return true
end
