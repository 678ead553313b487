-- Removing all that is kept of an app, a part at a time. What nodes know of is removed the way it is at any other time, so that they hear of it; the
-- rest is removed by its keys, which whoever erases finds by looking at all of them. What is kept is where the sequences stand, which nodes go by.
do
  -- Rows and retained messages of which nodes are told. Returns how many are gone.
  local function erase_told(limit)
    -- Without listeners nothing of the rest is told.
    for _, number in ipairs({ 40, 41 }) do
      write('DEL', rows_key(number), names_key(number))
      events.after_listener(number)
    end
    local removed = 0
    for number in pairs(TOLD_TABLES) do
      for _, name in ipairs(call('ZRANGE', names_key(number), 0, limit - 1)) do
        remove_row(number, name)
        removed = removed + 1
      end
    end
    local cursor = '0'
    repeat
      -- A page may be empty although there is more.
      local page = call('HSCAN', RETAINED, cursor, 'COUNT', limit)
      for i = 1, #page[2], 2 do
        retain(page[2][i])
        removed = removed + 1
      end
      cursor = page[1]
    until cursor == '0' or removed >= limit
    return removed
  end

  local function erase_device(client, ended)
    local device = load(client)
    if not device then return end
    if device.expiry then
      ended[#ended + 1] = { client, end_stored_session(device) }
    elseif device.pushes then
      end_ephemeral(device)
    end
    drop_will(client)
    if device.listed or device.ends_at then unindex('S' .. client) end
    write('HDEL', MEMORIES, client)
    write('DEL', device_key(client), extra_key(client), keyed_key(client))
    for _, lane in ipairs(LANES) do write('DEL', inbox_key(client, lane)) end
    -- Nothing of it is saved any more.
    devices[client], changed_devices[client] = false, nil
  end

  -- `tails`: of keys, what follows the root. Answers whether there is more that nodes are told of: then nothing else was done.
  run.erase = function(limit, clients, tails, is_last)
    local ended, removed = {}, erase_told(limit)
    if removed > 0 then return { ended, removed, true, {} } end
    for _, client in ipairs(clients) do erase_device(client, ended) end
    local keys, KEYS_AT_ONCE = {}, 500
    for number, tail in ipairs(tails) do keys[number] = K .. tail end
    for first = 1, #keys, KEYS_AT_ONCE do
      write('UNLINK', unpack(keys, first, math.min(first + KEYS_AT_ONCE - 1, #keys)))
    end
    if is_last then
      for log = 0, config.partitions do
        set_counter('t' .. log, end_of(log))
        set_counter('b' .. log, 0)
      end
      for _, name in ipairs({ 'v', 'vt', 'vb', 'rb', 'ib' }) do
        set_counter(name, 0)
        additions[name] = nil
      end
    end
    return { ended, #clients + #tails, false, {} }
  end
end
