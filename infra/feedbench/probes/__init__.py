"""Scripts that run in the function's own process, with the function's Python."""
