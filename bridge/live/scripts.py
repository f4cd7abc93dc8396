"""The Lua of the fences: a check and what it guards are one step, or they are no fence."""

from __future__ import annotations

PUBLISH = """
-- KEYS epoch, published, calls, live, cut.
-- ARGV epoch, batch, cap, and ('': only look) in MessagePack events of 6 fields, pairs of call and state ('': over).
local epoch = tonumber(redis.call('GET', KEYS[1]) or '-1')
local mine, batch = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch > mine then return {'fenced', ''} end
if epoch < mine then return {'missing', ''} end
local done = redis.call('HMGET', KEYS[2], 'epoch', 'batch', 'id')
if not done[1] then return {'flushed', ''} end
local last = 0
if tonumber(done[1]) == mine then last = tonumber(done[2]) end
if last >= batch then return {'again', done[3] or ''} end
if last < batch - 1 then return {'behind', tostring(last)} end
if ARGV[4] == '' then return {'ok', done[3] or ''} end
local told, id = cmsgpack.unpack(ARGV[4]), ''
for _, event in ipairs(told[1]) do
  local kind, call, pbx, seq, at, data = unpack(event)
  local fields = {'v', '1', 'type', kind, 'pbx', pbx, 'at', at, 'data', data}
  if call ~= '' then
    fields = {'v', '1', 'type', kind, 'call', call, 'pbx', pbx, 'seq', seq, 'at', at, 'data', data}
  end
  id = redis.call('XADD', KEYS[3], '*', unpack(fields))
end
for _, live in ipairs(told[2]) do
  if live[2] == '' then redis.call('HDEL', KEYS[4], live[1])
  else redis.call('HSET', KEYS[4], live[1], live[2]) end
end
if id == '' then id = done[3] or '' end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'batch', ARGV[2], 'id', id)
if redis.call('XLEN', KEYS[3]) > tonumber(ARGV[3]) then
  local cut = redis.call('XTRIM', KEYS[3], 'MAXLEN', ARGV[3])
  redis.call('HINCRBY', KEYS[5], 'count', cut)
  redis.call('HSET', KEYS[5], 'at', redis.call('TIME')[1])
end
return {'ok', id}
"""

RAISE = """
-- KEYS epoch, published. ARGV epoch, 1 where a new holder begins. Returns a higher epoch that is there, else ''.
local epoch = tonumber(redis.call('GET', KEYS[1]) or '-1')
if epoch > tonumber(ARGV[1]) then return tostring(epoch) end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[2] == '1' then redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'batch', '0') end
return ''
"""

RESTORE = """
-- KEYS epoch, published, live. ARGV epoch, batch that counts as the last, then pairs of call and state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
for at = 3, #ARGV - 1, 2 do redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1]) end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'batch', ARGV[2], 'id', '')
return 1
"""

SEND = """
-- KEYS commands. ARGV id, kind, deadline in ms from now, to, data.
local now = redis.call('TIME')
local deadline = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) + tonumber(ARGV[3])
redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'kind', ARGV[2], 'deadline', string.format('%.0f', deadline),
           'to', ARGV[4], 'data', ARGV[5])
return string.format('%.0f', deadline)
"""

READ = """
-- KEYS epoch, commands. ARGV epoch, group, consumer, count, '>' or '0'.
local epoch = tonumber(redis.call('GET', KEYS[1]) or '-1')
local mine = tonumber(ARGV[1])
if epoch > mine then return {'fenced'} end
if epoch < mine then return {'missing'} end
local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], ARGV[5])
if type(reply) == 'table' and reply.err then
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
  reply = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], ARGV[5])
end
if not reply then return {'ok', {}} end
return {'ok', reply[1][2]}
"""

ANSWER = """
-- KEYS commands, reply. ARGV group, entry, reply ('' for none), seconds the reply is kept.
if ARGV[3] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[3])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""
