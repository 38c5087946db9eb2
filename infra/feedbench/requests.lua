-- For wrk: one POST after the other from the file that BODIES names, one body a line, and a pause of
-- about THINK_MS before each, if that is above 0.
-- The last line that it prints is JSON. Its latencies are a thousand quantiles at even steps.

local prepared, at = {}, 0
local think_ms = tonumber(os.getenv("THINK_MS"))

function init()
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(os.getenv("BODIES")) do
    prepared[#prepared + 1] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

if think_ms > 0 then
  function delay()
    return math.random(think_ms / 2, think_ms * 3 / 2)
  end
end

function done(summary, latency)
  local failed = summary.errors
  local errors = failed.connect + failed.read + failed.write + failed.status + failed.timeout
  local latencies_ms = {}
  for step = 1, 1000 do
    latencies_ms[step] = latency:percentile((step - 0.5) / 10) / 1e3
  end
  print(string.format('{"requests": %d, "seconds": %f, "errors": %d, "latencies_ms": [%s]}',
    summary.requests, summary.duration / 1e6, errors, table.concat(latencies_ms, ", ")))
end
