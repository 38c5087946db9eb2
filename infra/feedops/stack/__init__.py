"""The stack: its build, its size, its templates and its packages."""
