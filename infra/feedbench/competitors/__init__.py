"""The same model behind other servers, each written as its own documentation has it.

They get their features from `feedrank.features`, the fastest way at hand, and the network as a
plain PyTorch module. They keep no decision record and write no log line and no metric.
"""
