"""The model: its engines, how one is loaded and proven, and what serves while it isn't."""
