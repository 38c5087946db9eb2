"""Logs, metrics, traces and the container's own counters."""
