"""Results as Markdown and pictures, and compared with the committed baseline.

`README.md` and the pictures here are made by `feedrank bench --readme`.
"""
