-- For wrk: one POST after the other from the file that BODIES names, one body a line.
-- The last line that it prints is JSON.

local prepared, at = {}, 0

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

function done(summary)
  local failed = summary.errors
  local errors = failed.connect + failed.read + failed.write + failed.status + failed.timeout
  print(string.format('{"requests": %d, "seconds": %f, "errors": %d}',
    summary.requests, summary.duration / 1e6, errors))
end
