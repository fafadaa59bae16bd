-- A mix of routes, as an application has them: mostly reads, some writes. wrk counts a status of 400 and more as an error.
local here = debug.getinfo(1, 'S').source:match('^@(.*/)') or './'
dofile(here .. 'report.lua')

local note = '{"title": "Milk", "tags": ["shop"]}'
local json = { ['Content-Type'] = 'application/json' }
local mix, turn = {}, 0

-- Built once: wrk.format is slow beside sending a string.
function init(_)
  local requests = {
    { 6, wrk.format('GET', '/api/hello?name=Ada') },
    { 3, wrk.format('GET', '/api/shop?apple=3&pear=2') },
    { 1, wrk.format('POST', '/api/notes', json, note) },
  }
  for _, weighted in ipairs(requests) do
    for _ = 1, weighted[1] do table.insert(mix, weighted[2]) end
  end
end

function request()
  turn = turn % #mix + 1
  return mix[turn]
end
