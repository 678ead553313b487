-- Apps and their keys: under a tag of their own. `names` sorted, `keys` hash of a key -> app, `created`, `used`: apps that have any state.
run.create_app = function(name, key, created_at)
  if call('HEXISTS', K .. 'created', name) == 1 or call('HEXISTS', K .. 'keys', key) == 1 then return 'E' end
  write('HSET', K .. 'created', name, digits(created_at))
  write('ZADD', K .. 'names', 0, name)
  write('HSET', K .. 'keys', key, name)
  return true
end

run.add_key = function(name, key)
  if call('HEXISTS', K .. 'created', name) == 0 then return 'A' end
  local owner = call('HGET', K .. 'keys', key)
  if owner == name then repeats() end
  if owner then return owner == name or 'E' end
  write('HSET', K .. 'keys', key, name)
  return true
end

run.register = function(apps)
  for _, app in ipairs(apps) do write('SADD', K .. 'used', app) end
  return true
end

-- The format of the store; set to `format` if there is none.
run.format = function(format)
  write('SETNX', K .. 'format', format)
  return tonumber(call('GET', K .. 'format'))
end
