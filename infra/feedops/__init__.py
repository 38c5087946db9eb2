"""For operators: the command line, the local Lambda, the build, decision records."""
