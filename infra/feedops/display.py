"""How the commands print: progress, facts and rankings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@contextmanager
def steps(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Shows a spinner with `text`, and yields a function that changes the text. Without a terminal
    each text is a line."""
    if console.is_terminal:
        with console.status(text) as status:
            yield status.update
    else:
        print_whole(console, text)
        yield lambda step: print_whole(console, step)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """One `name value` per line. Values are not wrapped, so that they can be copied."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), value), soft_wrap=True)


def print_whole(console: Console, text: str) -> None:
    """Without wrapping and colour, so that it can be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def print_ranking(console: Console, response: Mapping[str, Any]) -> None:
    """`response` is the body of a response of /predict."""
    table = Table(title=f"Items for user {response['user_id']}", title_justify="left")
    for heading in ("rank", "item", "score"):
        table.add_column(heading, justify="right")
    for item in response["predictions"]:
        table.add_row(str(item["rank"]), str(item["item_id"]), str(item["score"]))
    console.print(table)
    print_whole(
        console, f"{response['model_version']}, {response['latency_ms']:.2f} ms in the function"
    )
