"""The rows of a feature store: loading them, looking at them."""
