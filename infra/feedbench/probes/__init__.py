"""What runs in a process of its own, with the function's Python and path."""
