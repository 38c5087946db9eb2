"""The stack's metrics and dashboard, from local logs."""
