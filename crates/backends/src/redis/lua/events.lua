-- The event log of the app: a stream `v` with k kind, d device, p push, j what belongs to it as JSON; absent where it does not apply. Counters: v the
-- last place, vt trimmed to, vb where somebody began to listen after nobody did. An event is of the time that its place has. Nothing is written while
-- none of the tables of listeners has a row.
local EVENTS = K .. 'v'
local WEBHOOK_TABLE, LISTENER_TABLE, OPEN_TABLE = 40, 41, 42
local EVENT = { connected = 0, disconnected = 1, accepted = 5, delivered = 6, displayed = 7, clicked = 8, dismissed = 9, expired = 10, collapsed = 11, dropped = 12, failed = 13 }

-- The text of an id of 32 hexadecimal digits.
local function ulid(hex)
  local DIGITS, bits = '0123456789ABCDEFGHJKMNPQRSTVWXYZ', { '00' }
  for digit in string.gmatch(hex, '%x') do
    local value = tonumber(digit, 16)
    for _, bit in ipairs({ 8, 4, 2, 1 }) do
      bits[#bits + 1] = value >= bit and '1' or '0'
      value = value % bit
    end
  end
  return (string.gsub(table.concat(bits), '%d%d%d%d%d', function(five)
    local place = tonumber(five, 2) + 1
    return string.sub(DIGITS, place, place)
  end))
end

local listeners
local function has_listeners()
  if listeners == nil then listeners = call('EXISTS', rows_key(WEBHOOK_TABLE), rows_key(LISTENER_TABLE)) > 0 end
  return listeners
end

-- `device`, `push` and `data` may be absent.
local function append_event(kind, device, push, data)
  local fields = { 'k', kind }
  local function add(field, value)
    if not value then return end
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  add('d', device)
  add('p', push)
  add('j', data)
  local place = next_place()
  append_bounded(EVENTS, place, 'vt', config.events, unpack(fields))
  set_counter('v', place)
end

local function event(...)
  if has_listeners() then append_event(...) end
end

-- A row of a table is about to be made at a place, or was removed.
local function before_listener(number, place)
  if number ~= WEBHOOK_TABLE and number ~= LISTENER_TABLE then return end
  if not has_listeners() then set_counter('vb', place) end
  listeners = true
end
local function after_listener(number)
  if number == WEBHOOK_TABLE or number == LISTENER_TABLE then listeners = nil end
end

local function trim_events()
  local last = stream_id(first_place_of_now + 4095 - config.events_age * 4096)
  local newest = call('XREVRANGE', EVENTS, last, '-', 'COUNT', 1)[1]
  if not newest then return 0 end
  local place = place_of(newest[1])
  set_counter('vt', math.max(counter('vt'), place))
  return write('XTRIM', EVENTS, 'MINID', stream_id(place + 1))
end

local function row_subject(number, name) return 'X' .. number .. ':' .. name end

-- `expires_at` may be absent.
local function put_row(number, name, value, expires_at, version)
  before_listener(number, version)
  write('HSET', rows_key(number), name, digits(version) .. ':' .. (expires_at and digits(expires_at) or '') .. ':' .. value)
  write('ZADD', names_key(number), 0, name)
  if expires_at then index(expires_at, row_subject(number, name)) else unindex(row_subject(number, name)) end
end
