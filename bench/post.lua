-- Posts the bodies of a file, one a line, in turn; prints what came of it as one line of JSON.
-- BENCH_BODIES names the file. In each body, "@" stands for a number that no other request has.
-- BENCH_PAUSE_MS is the pause of each connection before every request.
-- BENCH_X_CACHE is what the header X-Cache should say: an apology says "off", and would pass for a fast reply.
local bodies = {}
for line in io.lines(os.getenv("BENCH_BODIES")) do
  bodies[#bodies + 1] = line
end
local seed = os.getenv("BENCH_SEED")
local x_cache = os.getenv("BENCH_X_CACHE")
local sent = 0
local worker
unmeant = 0 -- global: read from another Lua state, by name

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

setup = function(thread)
  worker = thread
end

request = function()
  sent = sent + 1
  local body = bodies[(sent % #bodies) + 1]:gsub("@", seed .. "-" .. sent)
  return wrk.format(nil, nil, nil, body)
end

local pause_ms = tonumber(os.getenv("BENCH_PAUSE_MS"))
if pause_ms > 0 then
  delay = function()
    return pause_ms
  end
end

response = function(status, headers)
  if (headers["x-cache"] or headers["X-Cache"]) ~= x_cache then
    unmeant = unmeant + 1
  end
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f, "failed": %d, "unmeant": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    worker:get("unmeant")))
end
