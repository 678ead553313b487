-- Removing what has expired, through the index and from the front of logs.
local HAND_OUT_AGAIN_MS = 30000
local MOST_AT_ONCE = 5000

local expire = {}

local function hand_out(key, field, client, subject, is_final, now, swept)
  local value = call('HGET', key, field)
  if not value then return 0, true end
  local will = parse_will(value)
  if not will.due then return 0, true end
  local device = load(client)
  -- Without a session there is nothing to wait for.
  local ends_at = will.due
  if device and device.expiry and not is_final then ends_at = device.ends_at or false end
  swept.wills[#swept.wills + 1] = { client, will.record, will.due, ends_at, is_final }
  index(now + HAND_OUT_AGAIN_MS, subject)
  return 0, false
end

expire.W = function(client, now, _, swept) return hand_out(WILLS, client, client, 'W' .. client, false, now, swept) end
expire.O = function(field, now, _, swept)
  return hand_out(OWED, field, string.sub(field, 33), 'O' .. field, true, now, swept)
end

expire.S = function(client, now, _, swept)
  local device = load(client)
  if not device or not device.expiry or not is_expired(device, now) then return 0, true end
  swept.ended[#swept.ended + 1] = { client, end_stored_session(device) }
  return 1, true
end

local function expire_from_inbox(client, place)
  local device = load(client)
  if not device then return 0 end
  local removed = remove_from_inbox(device, { place })
  forget_idle(device)
  return removed
end

-- A push's time to live is over: nobody is sent it any more.
expire.P = function(push, _, limit)
  local key, removed = push_key(push), 0
  local row = call('HMGET', key, 'e', 'o', 'l', 'y')
  if not row[1] then return 0, true end
  local place = tonumber(row[2])
  if not place then
    -- A campaign is no entry anywhere.
  elseif row[3] == TO_ALL then
    for _, entry in ipairs(call('XRANGE', log_key(0), stream_id(place), stream_id(place))) do
      remove_from_log(0, entry)
      removed = removed + 1
    end
  else
    local clients = row[3] == TO_ONE and { row[4] } or call('LRANGE', key .. ':c', 0, limit - 1)
    for _, client in ipairs(clients) do
      if expire_from_inbox(client, place) > 0 then events.tell(events.expired, client, push) end
      removed = removed + 1
    end
    if row[3] == TO_FEW then
      if removed > 0 then write('LTRIM', key .. ':c', removed, -1) end
      if call('EXISTS', key .. ':c') == 1 then return removed, false, true end
      write('HDEL', key, 'm')
    end
  end
  index(tonumber(row[1]) + config.retention, 'R' .. push)
  return removed, true
end

expire.R = function(push)
  local key = push_key(push)
  local row = call('HMGET', key, 'a', 'c', 'l')
  if not row[1] then return 0, true end
  local function remove_sets(tail)
    local keys = {}
    for number, name in ipairs(SETS) do keys[number] = key .. ':' .. name .. tail end
    write('DEL', unpack(keys))
  end
  write('DEL', key, key .. ':h')
  write('ZREM', PUSHES, push)
  if row[3] == TO_FEW then remove_sets('') end
  for chunk = 0, tonumber(row[2] or 0) - 1 do remove_sets(':' .. chunk) end
  return 1, true
end

expire.T = function(topic, now)
  local value = call('HGET', RETAINED, topic)
  local expires_at = value and tonumber(string.match(value, '^%d+'))
  if not expires_at or expires_at > now then return 0, true end
  count_retained(topic, 0)
  write('HDEL', RETAINED, topic)
  change('R', topic)
  return 1, true
end

expire.I = function(key, now)
  local used = call('HGET', IDEMPOTENCY, key)
  if not used or cmsgpack.unpack(used)[5] > now then return 0, true end
  write('HDEL', IDEMPOTENCY, key)
  return 1, true
end

expire.E = function(subject)
  local place, client = string.match(subject, '^(%d+):(.*)$')
  return expire_from_inbox(client, tonumber(place)), true
end

-- The hours that have begun: whose session ends in them goes to the expiry index. Returns whether there is more to do.
local function begin_hours(now)
  local left = MOST_AT_ONCE
  for _, name in ipairs(call('ZRANGEBYSCORE', HOURS, '-inf', digits(now), 'LIMIT', 0, 100)) do
    local key, hour = HOURS .. ':' .. name, tonumber(name)
    local clients = call('LRANGE', key, 0, left - 1)
    for _, client in ipairs(clients) do
      local device = load(client)
      if device and device.listed == hour then
        set(device, 'listed', nil)
        if device.expiry and device.ends_at then end_at(device, device.ends_at, now) end
      end
    end
    write('LTRIM', key, #clients, -1)
    if call('EXISTS', key) == 1 then return true end
    write('ZREM', HOURS, name)
    left = left - #clients
    if left <= 0 then return true end
  end
  return false
end

-- Nobody who knew changes as old as that comes back for the next ones.
local CHANGES_KEPT_MS = 600000
local function trim_changes()
  local newest = call('XREVRANGE', CHANGES, stream_id(first_place_of_now - CHANGES_KEPT_MS * 4096), '-', 'COUNT', 1)[1]
  if not newest then return end
  local place = place_of(newest[1])
  write('XTRIM', CHANGES, 'MINID', stream_id(place + 1))
  set_counter('ht', math.max(counter('ht'), place))
end

run.sweep = function(now, limit)
  local swept = { ended = {}, wills = {} }
  local left, removed_in_all, more = math.min(limit, MOST_AT_ONCE), 0, begin_hours(now)
  trim_changes()
  removed_in_all = removed_in_all + events.trim()
  local due = call('ZRANGEBYSCORE', INDEX, '-inf', digits(now), 'LIMIT', 0, left + 1)
  if #due > left then
    more = true
    due[#due] = nil
  end
  for _, subject in ipairs(due) do
    if left == 0 then
      more = true
      break
    end
    local removed, done, unfinished = expire[string.sub(subject, 1, 1)](string.sub(subject, 2), now, left, swept)
    removed_in_all = removed_in_all + removed
    left = left - math.min(math.max(removed, 1), left)
    if done then unindex(subject) end
    more = more or unfinished or false
  end
  local all = call('HKEYS', META)
  table.sort(all)
  for _, name in ipairs(all) do
    local log = string.match(name, '^e(%d+)$')
    if log and log ~= '0' then
      local removed = trim_log(log, now, left)
      removed_in_all, left = removed_in_all + removed, left - removed
      if left == 0 then
        more = true
        break
      end
    end
  end
  return { swept.ended, removed_in_all, more, swept.wills }
end

-- A node alone was started: connections of the last run are lost at `now`. Some at a time; answers whether that was all.
run.recover_devices = function(now, limit)
  for _, owner in ipairs(call('SMEMBERS', K .. 'gs')) do
    local clients = call('SRANDMEMBER', connected_key(owner), limit)
    for _, client in ipairs(clients) do
      local device = load(client)
      if not device or device.owner ~= owner then
        write('SREM', connected_key(owner), client)
      elseif device.pushes then
        end_ephemeral(device)
      elseif device.expiry == 0 then
        end_stored_session(device)
      else
        disconnect(device, session_end(now, device.expiry), now)
      end
    end
    if call('EXISTS', connected_key(owner)) == 1 then return false end
    write('DEL', K .. 'n:' .. owner)
    write('SREM', K .. 'gs', owner)
  end
  return true
end

-- A page of the wills that are owed; the delay of those whose connections were up begins.
run.recover_wills = function(now, cursor, is_final)
  local page = call('HSCAN', is_final and OWED or WILLS, cursor, 'COUNT', 500)
  local wills = {}
  for i = 1, #page[2], 2 do
    local field, will = page[2][i], parse_will(page[2][i + 1])
    local client = is_final and string.sub(field, 33) or field
    local due, ends_at = will.due or false, false
    if not is_final then
      local device = load(client)
      -- Without a session there is nothing to wait for.
      ends_at = not (device and device.expiry) and now or device.ends_at or false
      if not due then set_due(client, will, now + will.delay * 1000) end
    end
    wills[#wills + 1] = { client, will.record, due, ends_at, is_final }
  end
  return { page[1], wills }
end
