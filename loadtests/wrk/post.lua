-- JSON in, JSON out: each request has a body.
local here = debug.getinfo(1, 'S').source:match('^@(.*/)') or './'
dofile(here .. 'report.lua')

wrk.method = 'POST'
wrk.path = '/api/notes'
wrk.headers['Content-Type'] = 'application/json'
wrk.body = '{"title": "Milk", "tags": ["shop", "dairy", "' .. string.rep('x', 512) .. '"]}'
