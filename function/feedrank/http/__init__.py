"""The app: routes, their fast path, and what stands around it on Lambda and uvicorn."""
