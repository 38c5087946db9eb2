"""A lean client of Valkey and Redis."""
