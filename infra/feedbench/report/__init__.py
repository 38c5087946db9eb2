"""Results as Markdown and pictures (`feedrank bench --readme`), and compared with the baseline."""
