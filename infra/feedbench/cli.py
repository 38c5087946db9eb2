"""The console script: the `feedrank` command with the benchmark's own two."""

from feedbench import command
from feedops.cli.main import app

command.register(app)


def main() -> None:
    app()
