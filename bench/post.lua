-- Posts the bodies of a file, one a line, in turn; prints what came of it as one line of JSON.
-- BENCH_BODIES names the file. In each body, "@" stands for a number that no other request has.
local bodies = {}
for line in io.lines(os.getenv("BENCH_BODIES")) do
  bodies[#bodies + 1] = line
end
local seed = os.getenv("BENCH_SEED")
local sent = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

request = function()
  sent = sent + 1
  local body = bodies[(sent % #bodies) + 1]:gsub("@", seed .. "-" .. sent)
  return wrk.format(nil, nil, nil, body)
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p90_ms": %f, "p99_ms": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
