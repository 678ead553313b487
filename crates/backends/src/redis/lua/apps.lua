-- The apps that have any state: the set `used`, under a tag of its own with what belongs to no app.
run.register = function(apps)
  for _, app in ipairs(apps) do write('SADD', K .. 'used', app) end
  return true
end

-- The format of the store; set to `format` if there is none.
run.format = function(format)
  write('SETNX', K .. 'format', format)
  return tonumber(call('GET', K .. 'format'))
end
