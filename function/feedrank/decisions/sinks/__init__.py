"""Where decision records go beside standard output."""
