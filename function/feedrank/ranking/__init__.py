"""A request as one paragraph, where its inference takes place, and the rules after it."""
