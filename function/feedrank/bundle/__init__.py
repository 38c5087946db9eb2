"""The model bundle: its layout, where it is fetched from, and how it is verified."""
