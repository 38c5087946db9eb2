"""Decision records, as operators handle them."""
