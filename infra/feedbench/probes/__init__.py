"""What runs in a process of its own, with the function's Python and path.

The cold ones are scripts that import nothing that the function doesn't; the warm ones are functions
that `python -m feedbench.probes.warm NAME RESULT OPTIONS` calls.
"""
