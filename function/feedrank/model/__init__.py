"""The model: its engines, how one is loaded and tested, and what serves until then."""
