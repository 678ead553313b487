-- What every rule uses: keys, counters, and the answer in the making. Everything lives under one hash tag, KEYS[1].
local K = KEYS[1]
local call = redis.call
local writes, dropped, notices, request = 0, 0, {}, 0
local config = {}

-- Numbers beyond 2^46 lose digits in a concatenation.
local function digits(number) return string.format('%.0f', number) end

local function write(...)
  writes = writes + 1
  return call(...)
end

-- Says yes to what was written before: as good as a write, since replicas may not have it yet.
local function repeats() writes = math.max(writes, 1) end

local function announce(...) notices[#notices + 1] = { request, ... } end

-- Counters of the app, read once and written back at the end of the script.
local META = K .. 'm'
local counters, changed_counters = {}, {}
local function counter(name)
  local value = counters[name]
  if not value then
    value = tonumber(call('HGET', META, name) or 0)
    counters[name] = value
  end
  return value
end
local function set_counter(name, value)
  counters[name], changed_counters[name] = value, true
end
-- Counters that are only added to here are not read.
local additions = {}
local function add_to_counter(name, more) additions[name] = (additions[name] or 0) + more end
local function save_counters()
  for name, more in pairs(additions) do
    if more ~= 0 then write('HINCRBY', META, name, digits(more)) end
  end
  local changed = {}
  for name in pairs(changed_counters) do
    changed[#changed + 1] = name
    changed[#changed + 1] = digits(counters[name])
  end
  if #changed > 0 then write('HSET', META, unpack(changed)) end
end
-- Ends of the push log and of the topic logs, read together.
local function end_of(log)
  if log <= config.partitions and not counters['e' .. log] then
    local names = {}
    for each = 0, config.partitions do names[each + 1] = 'e' .. each end
    for number, value in ipairs(call('HMGET', META, unpack(names))) do
      counters[names[number]] = counters[names[number]] or tonumber(value or 0)
    end
  end
  return counter('e' .. log)
end

local time = call('TIME')
local server_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Milliseconds since 2025, times 4096: below 2^53 for the next 69 years.
local first_place_of_now = (server_ms - 1735689600000) * 4096

-- One sequence for entries of logs and inboxes, changes, notes and epochs. The clock in it keeps a number from being given twice when a
-- failover lost the newest writes.
local function next_place()
  local place = math.max(counter('q') + 1, first_place_of_now)
  set_counter('q', place)
  return place
end

-- An entry of the expiry index: a kind and its subject. One subject has one time.
local INDEX = K .. 'z'
local function index(at, subject) write('ZADD', INDEX, digits(at), subject) end
local function unindex(subject) write('ZREM', INDEX, subject) end

local function stream_id(place) return digits(place) .. '-0' end
local function place_of(id) return tonumber(string.match(id, '^%d+')) end
local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end

-- Appends to a stream of at most so many entries. `lost` is the counter that remembers what was dropped.
local STREAM_ENTRIES = 65536
local stream_entries = {}
local function append_bounded(key, place, lost, most, ...)
  write('XADD', key, stream_id(place), ...)
  local entries = stream_entries[key]
  entries = entries and entries + 1 or call('XLEN', key)
  if entries > most then
    for _, entry in ipairs(call('XRANGE', key, '-', '+', 'COUNT', entries - most)) do
      write('XDEL', key, entry[1])
      set_counter(lost, place_of(entry[1]))
      entries = entries - 1
    end
  end
  stream_entries[key] = entries
end

-- Word for a node: a client of its has something in the inbox at a place, or (0) is not its client any more. The mailbox of a node that is gone
-- ends by itself.
local MAILBOX_KEPT_MS = 86400000
local function note(owner, client, place, lane)
  if owner == '0' then return end
  local mailbox = K .. 'n:' .. owner
  local is_first = not stream_entries[mailbox]
  local fields = { 'c', client, 'e', digits(place) }
  if lane and lane ~= 0 then fields[5], fields[6] = 'l', lane end
  append_bounded(mailbox, next_place(), 'nt' .. owner, STREAM_ENTRIES, unpack(fields))
  if is_first then write('PEXPIRE', mailbox, MAILBOX_KEPT_MS) end
end

-- Word of what all nodes route by. A node alone hears only of what is retained, of profiles and of campaigns, and keeps no log of it, but the last place.
local CHANGES = K .. 'h'
local function change(kind, subject, ...)
  if not config.shared and kind ~= 'R' and kind ~= 'P' and kind ~= 'C' then return end
  local previous, place = counter('h'), next_place()
  if config.shared then append_bounded(CHANGES, place, 'ht', STREAM_ENTRIES, 'k', kind, 's', subject, ...) end
  set_counter('h', place)
  local fields = fields_of({ ... })
  announce(kind, subject, previous, place, fields.c or false, fields.v or false)
end

local function remove_fields(key, names)
  for first = 1, #names, 1000 do
    write('HDEL', key, unpack(names, first, math.min(first + 999, #names)))
  end
end
