"""The request path: what runs in Lambda."""

__version__ = "0.1.0"
