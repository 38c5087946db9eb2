"""The stack's dashboard, drawn from local logs."""
