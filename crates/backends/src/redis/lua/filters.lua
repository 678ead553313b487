-- Filters of durable sessions: counted, or listed by member if shared.
--
-- The counts are spread over hashes `fc:NUMBER` that are small enough to stay listpacks, a third of what one large hash takes. There are `fb` of them for
-- `fn` filters: with every so many more the next one is split in two (linear hashing).
local FILTERS_IN_HASH = 48

local function is_shared(filter) return string.sub(filter, 1, 7) == '$share/' end

local function counts_key(number) return K .. 'fc:' .. number end
local function hashes() return math.max(counter('fb'), 1) end
local function hash_of(filter, count)
  local half = 1
  while half * 2 <= count do half = half * 2 end
  local hashed = tonumber(string.sub(redis.sha1hex(filter), 1, 8), 16)
  local number = hashed % (half * 2)
  -- That one is not split off yet.
  return number < count and number or hashed % half
end

local function split_hash()
  local count = hashes()
  local half = 1
  while half * 2 <= count do half = half * 2 end
  local from, to = counts_key(count - half), counts_key(count)
  set_counter('fb', count + 1)
  local row, moved, gone = call('HGETALL', from), {}, {}
  for i = 1, #row, 2 do
    if hash_of(row[i], count + 1) == count then
      gone[#gone + 1] = row[i]
      moved[#moved + 1] = row[i]
      moved[#moved + 1] = row[i + 1]
    end
  end
  for first = 1, #moved, 1000 do write('HSET', to, unpack(moved, first, math.min(first + 999, #moved))) end
  remove_fields(from, gone)
end

local function count_filter(filter, by)
  local key = counts_key(hash_of(filter, hashes()))
  local count = write('HINCRBY', key, filter, by)
  if by > 0 and count == 1 then
    set_counter('fn', counter('fn') + 1)
    if counter('fn') > hashes() * FILTERS_IN_HASH then split_hash() end
  elseif count <= 0 then
    write('HDEL', key, filter)
    set_counter('fn', counter('fn') - 1)
  end
  return count
end

local function filter_added(client, filter, member)
  if not config.shared then return end
  if is_shared(filter) then
    local field = filter .. '\0' .. client
    if call('HGET', K .. 'sm', field) ~= member then
      write('HSET', K .. 'sm', field, member)
      change('M', filter, 'c', client, 'v', member)
    end
  elseif count_filter(filter, 1) == 1 then
    change('F', filter, 'v', '1')
  end
end

local function filter_removed(client, filter)
  if not config.shared then return end
  if is_shared(filter) then
    if write('HDEL', K .. 'sm', filter .. '\0' .. client) == 1 then change('M', filter, 'c', client) end
  elseif count_filter(filter, -1) <= 0 then
    change('F', filter)
  end
end

local function all_filters()
  local filters = {}
  for number = 0, hashes() - 1 do
    for _, filter in ipairs(call('HKEYS', counts_key(number))) do filters[#filters + 1] = filter end
  end
  return filters
end
