-- wrk's script: every request is a fresh MCP call of either era, every answer is read and checked.
--
-- Arguments (after `--`, key=value): host, path, era=modern|legacy, method=tools/call|tools/list, names=FILE (one tool name
-- a line, called in turn), sessions=FILE (legacy: one session id a line), token=BEARER TOKEN (none by default), text=BYTES of text,
-- distinct=N (as many calls that differ; 0, the default: every one does),
-- expect=echo|progress|big|list:N.
-- A fresh `traceparent` and JSON-RPC id per request: nothing can answer from a cache of header blocks or bodies.
-- Checked: HTTP 200; the id of an answer is one that was asked and not answered yet; an echo carries the text of that very
-- call; the size is what it must be. Prints one line of JSON at the end. Read by bench/load.py.

local opt, heads, tails, sessions = {}, {}, {}, {}
local outstanding, turn, id = {}, 0, 100000000
local filler, seed
bad, first_bad = 0, ""

local function lines(path)
  local out = {}
  for line in io.lines(path) do out[#out + 1] = line end
  return out
end

function init(args)
  for _, arg in ipairs(args) do
    local key, value = arg:match("^(%w+)=(.*)$")
    opt[key] = value
  end
  seed = os.time() * 1000 + math.floor(os.clock() * 1e6) % 1000
  math.randomseed(seed)
  seed = string.format("00-%08x%08x", math.random(0, 2147483647), math.random(0, 2147483647))
  filler = string.rep("x", tonumber(opt.text) - 15)
  local modern = opt.era == "modern"
  if not modern then sessions = lines(opt.sessions) end
  local common = "POST " .. opt.path .. " HTTP/1.1\r\nHost: " .. opt.host .. "\r\nContent-Type: application/json\r\n"
    .. "Accept: application/json, text/event-stream\r\nUser-Agent: bench/1\r\nMCP-Protocol-Version: "
    .. (modern and "2026-07-28" or "2025-11-25") .. "\r\n"
  if opt.token then common = common .. "Authorization: Bearer " .. opt.token .. "\r\n" end
  local meta = modern and ('"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    .. '"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}') or nil
  for _, name in ipairs(opt.method == "tools/call" and lines(opt.names) or { "" }) do
    local head, tail = common, '"method":"' .. opt.method .. '","params":{'
    if modern then head = head .. "Mcp-Method: " .. opt.method .. "\r\n" end
    if name ~= "" then
      if modern then head = head .. "Mcp-Name: " .. name .. "\r\n" end
      tail = tail .. '"name":"' .. name .. '","arguments":{"text":"call '
    end
    heads[#heads + 1] = head
    tails[#tails + 1] = tail
  end
  opt.meta = meta or ""
end

-- What tells the call of an id from others.
local function mark(one)
  local distinct = tonumber(opt.distinct or "0")
  return distinct > 0 and 100000000 + one % distinct or one
end

function request()
  id = id + 1
  turn = turn + 1
  local k = (turn - 1) % #heads + 1
  local body = '{"jsonrpc":"2.0","id":' .. id .. "," .. tails[k]
  local meta = opt.meta
  if opt.expect == "progress" then
    meta = meta .. (meta ~= "" and "," or "") .. '"progressToken":' .. id
  end
  if opt.method == "tools/call" then body = body .. mark(id) .. " " .. filler .. '"}' end
  if meta ~= "" then
    body = body .. (opt.method == "tools/call" and ',"_meta":{' or '"_meta":{') .. meta .. "}"
  end
  body = body .. "}}"
  local session = #sessions > 0 and ("Mcp-Session-Id: " .. sessions[turn % #sessions + 1] .. "\r\n") or ""
  outstanding[id] = true
  return heads[k] .. session .. "traceparent: " .. seed .. string.format("%016x-%016x-01", turn, id)
    .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local function check(status, body)
  if status ~= 200 then return "status " .. status end
  local got = tonumber(body:match('"id":%s*(%d+)'))
  if not got or not outstanding[got] then return "an id nobody asked for" end
  outstanding[got] = nil
  if opt.expect == "echo" or opt.expect == "progress" then
    if not body:find('"text":"call ' .. mark(got) .. " " .. filler .. '"', 1, true) then return "not the text of this call" end
    if opt.expect == "progress" and select(2, body:gsub("notifications/progress", "")) ~= 3 then return "not three progress events" end
  elseif opt.expect == "big" then
    if #body < 32768 then return "shorter than 32 KiB" end
  else
    if #body < tonumber(opt.expect:match("^list:(%d+)$")) then return "list too short" end
  end
end

function response(status, headers, body)
  local fault = check(status, body)
  if fault then
    bad = bad + 1
    if bad == 1 then first_bad = fault .. ": " .. body:sub(1, 300) end
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, requests)
  local wrong, why = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("bad")
    if why == "" then why = thread:get("first_bad") end
  end
  local e = summary.errors
  io.write(string.format(
    '\n{"calls":%d,"seconds":%.6f,"bytes":%d,"wrong":%d,"socket_errors":%d,"timeouts":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"why":"%s"}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, wrong, e.connect + e.read + e.write, e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, (why:gsub('[%c"\\]', "."))))
end
