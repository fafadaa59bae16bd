-- No two requests alike, of the path that wrk was given: what a cache in front cannot answer.
local here = debug.getinfo(1, 'S').source:match('^@(.*/)') or './'
dofile(here .. 'report.lua')

local turn, salt = 0, 0

-- Threads and runs differ by more than their counter.
function init(_)
  math.randomseed(os.time())
  salt = math.random(1, 1e9) + tonumber(tostring({}):match('0x(%x+)'), 16) % 1e6
end

-- The name is not in the answer: PHP reads the query, the function's answer stays the same.
function request()
  turn = turn + 1
  return wrk.format('GET', wrk.path .. '?turn=' .. salt .. '-' .. turn)
end
