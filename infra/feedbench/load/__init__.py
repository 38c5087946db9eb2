"""`feedrank load`: the HTTP front under locust's users."""
