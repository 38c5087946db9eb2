"""What runs in a process of its own, with the function's Python and path.

The cold ones are scripts that import nothing that the function doesn't. The others are functions,
which `python -m feedbench.probes MODULE.FUNCTION RESULT OPTIONS` calls.
"""
