"""The demo: a feed, its features, two networks, and their training."""
