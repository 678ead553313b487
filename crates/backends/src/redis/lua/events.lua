-- The event log of the app: a stream `v` with k kind, d device, p push, j what belongs to it as JSON; absent where it does not apply. Counters: v the
-- last place, vt trimmed to, vb where somebody began to listen after nobody did. An event is of the time that its place has. Nothing is written while
-- none of the tables of listeners has a row.
-- A script has at most 200 locals of its own, so that these are fields and those that nobody else needs are in a block.
local events = {
  key = K .. 'v',
  -- The numbers of kinds.
  connected = 0, disconnected = 1, accepted = 5, delivered = 6, displayed = 7, clicked = 8, dismissed = 9, expired = 10, collapsed = 11, dropped = 12,
  failed = 13,
}
do
  local WEBHOOKS, LISTENERS = 40, 41
  -- The text of an id of 32 hexadecimal digits.
  events.ulid = function(hex)
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
  events.has_listeners = function()
    if listeners == nil then listeners = call('EXISTS', rows_key(WEBHOOKS), rows_key(LISTENERS)) > 0 end
    return listeners
  end

  -- `device`, `push` and `data` may be absent.
  events.append = function(kind, device, push, data)
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
    append_bounded(events.key, place, 'vt', config.events, unpack(fields))
    set_counter('v', place)
  end

  events.tell = function(...)
    if events.has_listeners() then events.append(...) end
  end

  -- A row of a table is about to be made at a place, or was removed.
  events.before_listener = function(number, place)
    if number ~= WEBHOOKS and number ~= LISTENERS then return end
    if not events.has_listeners() then set_counter('vb', place) end
    listeners = true
  end
  events.after_listener = function(number)
    if number == WEBHOOKS or number == LISTENERS then listeners = nil end
  end

  events.trim = function()
    local last = stream_id(first_place_of_now + 4095 - config.events_age * 4096)
    local newest = call('XREVRANGE', events.key, last, '-', 'COUNT', 1)[1]
    if not newest then return 0 end
    local place = place_of(newest[1])
    set_counter('vt', math.max(counter('vt'), place))
    return write('XTRIM', events.key, 'MINID', stream_id(place + 1))
  end

  -- As readers get it.
  events.parts = function(place, fields)
    return place, tonumber(fields.k), fields.d or false, fields.p or false, fields.j or false
  end
end

local function row_subject(number, name) return 'X' .. number .. ':' .. name end

-- `expires_at` may be absent.
local function put_row(number, name, value, expires_at, version)
  events.before_listener(number, version)
  write('HSET', rows_key(number), name, digits(version) .. ':' .. (expires_at and digits(expires_at) or '') .. ':' .. value)
  write('ZADD', names_key(number), 0, name)
  if expires_at then index(expires_at, row_subject(number, name)) else unindex(row_subject(number, name)) end
end
