"""Finding, comparing and promoting models."""
