"""The same model behind other servers, each written as its own documentation has it. They get their
features from `feedrank.features`, and keep no decision record, log line or metric."""
