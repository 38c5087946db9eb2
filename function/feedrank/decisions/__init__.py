"""The decision record and where it goes."""
