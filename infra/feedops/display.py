"""What the commands show."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@contextmanager
def steps(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a text that what comes out changes; without a terminal, a line for each."""
    if console.is_terminal:
        with console.status(text) as status:
            yield status.update
    else:
        print_whole(console, text)
        yield lambda step: print_whole(console, step)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """A name and a value a line; no value is broken, so that each can be copied."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), value), soft_wrap=True)


def print_whole(console: Console, text: str) -> None:
    """Without a break or a colour, to be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def print_ranking(console: Console, answer: Mapping[str, Any]) -> None:
    """The body of an answer of /predict."""
    table = Table(title=f"Items for user {answer['user_id']}", title_justify="left")
    for heading in ("rank", "item", "score"):
        table.add_column(heading, justify="right")
    for each in answer["predictions"]:
        table.add_row(str(each["rank"]), str(each["item_id"]), str(each["score"]))
    console.print(table)
    print_whole(
        console, f"{answer['model_version']}, {answer['latency_ms']:.2f} ms in the function"
    )
