"""What an operator runs: the command line and the local Lambda."""
