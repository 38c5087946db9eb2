"""Which model is served, and how it got there."""
