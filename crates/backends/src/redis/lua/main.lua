-- One call: ARGV[1] is a packed query and its parameters, or a batch of one writer with ARGV[2] its name and ARGV[3] its number; ARGV[4] is the
-- configuration. ARGV[5] is the number of the batch that was sent with it and stands before it, or 0.
local input = cmsgpack.unpack(ARGV[1])
if not ARGV[2] then
  local answer = read[input[1]](unpack(input, 2))
  return cmsgpack.pack(answer)
end

-- A batch whose answer was lost is sent again under the same number: it gets the answer of the first time. The last few are kept, in a ring,
-- since as many may be under way.
local WRITER, number = K .. 'W:' .. ARGV[2], tonumber(ARGV[3])
local WRITER_KEPT_MS, BATCHES_KEPT = 600000, 8
local slot = tostring(number % BATCHES_KEPT)
local last = call('HMGET', WRITER, 'n', slot)
if last[1] and tonumber(last[1]) >= number then
  local kept, at = string.match(last[2] or '', '^(%d+):()')
  if tonumber(kept) ~= number then return redis.error_reply('STALE batch ' .. number .. ' of a writer that is at ' .. last[1]) end
  -- A write, so that whoever waits for replicas waits for what it repeats too.
  call('PEXPIRE', WRITER, WRITER_KEPT_MS)
  return string.sub(last[2], at)
end
-- What stood before it may have met a server that was not ready.
if tonumber(last[1] or 0) < tonumber(ARGV[5]) then return redis.error_reply('BEHIND batch ' .. ARGV[5] .. ', which was not carried out') end
local c = cmsgpack.unpack(ARGV[4])
config = {
  inbox_entries = c[1], inbox_bytes = c[2], retention = c[3], log_age = c[4], log_bytes = c[5], partitions = c[6], shared = c[7],
  events = c[8], events_age = c[9],
}
local replies = {}
for i, command in ipairs(input) do
  request = i - 1
  replies[i] = run[command[1]](unpack(command, 2))
end
save_marks()
save_devices()
save_owners()
save_counters()
local answer = cmsgpack.pack({ replies, notices, dropped, writes, counters.q or 0 })
call('HSET', WRITER, 'n', number, slot, number .. ':' .. answer)
call('PEXPIRE', WRITER, WRITER_KEPT_MS)
return answer
