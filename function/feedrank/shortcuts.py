"""Places where a request, or a start, doesn't take the way that a library has for it.

Each is measured, and compared with the plain way by a test. One line here switches it off: look
there first when an upgrade of Mangum, FastAPI or Powertools breaks something. `make plain` runs the
app's tests with all of them off.
"""

DIRECT_ROUTE: bool = True
STRAIGHT_CYCLE: bool = True
BATCHING: bool = True
