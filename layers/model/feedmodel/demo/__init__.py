"""The demo: a feed, its features, two networks, and their training; and a model of
what else a spec can say."""
