"""The `feedrank` command."""
