"""Releasing a model to a deployed stack, and watching it."""
