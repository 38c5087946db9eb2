"""`feedrank bench`: what the project promises about speed, size and memory, measured.

Everything is a ratio of two things in one run on one machine, taken by turns so that the machine's
own drift falls on both, or a size.
"""
