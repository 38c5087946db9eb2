"""`feedrank load`: the HTTP front under Locust's users."""
