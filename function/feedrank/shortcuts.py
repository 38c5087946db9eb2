"""Five places where a request, or a start, doesn't go the way that a library has for it.

One line switches each off: begin there when an upgrade of Mangum, FastAPI, Pydantic or Powertools
breaks something. `make plain` runs the app's tests with all five off. Times are p50 of the warm
handler with 5 items: 81 µs, and 222 µs with all off (2026-11-25, one busy machine, by turns).
"""

# Replaces FastAPI's routing of `POST /predict`, its middleware stack and its request objects.
# Gains 75 of 156 µs.
# Compared by test_direct.py: test_the_direct_way_responds_as_fastapis_own_does.
DIRECT_ROUTE: bool = True

# Replaces Mangum's HTTPCycle: a task, a queue and a turn of the event loop for each request.
# Gains 24 of 105 µs.
# Compared by test_adapter.py: test_the_response_is_the_same_with_a_loop_and_without.
STRAIGHT_CYCLE: bool = True

# Replaces Powertools' Metrics, which checks and serializes a request's metrics.
# Gains 55 of 136 µs.
# Compared by test_shortcuts.py: test_without_it_the_function_responds_and_logs_alike.
EMF_LINE: bool = True

# Replaces the building of FastAPI's own schemas when it is imported.
# Gains 104 of 457 ms of a start's CPU time.
# Compared by test_shortcuts.py: test_the_document_is_the_same_with_schemas_built_at_once.
DEFERRED_SCHEMAS: bool = True

# Replaces an inference on the event loop for each request, one after the other.
# Gains 1.2 x in requests/s of uvicorn where a second core is free (see feedbench), else nothing.
# Compared by test_shortcuts.py: test_a_shared_inference_gives_each_request_its_own_scores.
BATCHING: bool = True
