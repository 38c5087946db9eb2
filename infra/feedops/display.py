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
    """`response` is the body of a response of /predict. Its outputs, and what is unknown, have a
    column where there are any."""
    unknown = response.get("unknown") or {"user": False, "items": []}
    user = f"{response['user_id']}{' (unknown)' * unknown['user']}"
    table = Table(title=f"Items for user {user}", title_justify="left")
    predictions = response["predictions"]
    outputs = list(predictions[0].get("outputs") or ()) if predictions else []
    for heading in ("rank", "item", "score", *outputs):
        table.add_column(heading, justify="right")
    if unknown["items"]:
        table.add_column("")
    for item in predictions:
        row = [item["rank"], item["item_id"], item["score"]]
        row += [item["outputs"][name] for name in outputs]
        row += ["unknown"] if item["item_id"] in unknown["items"] else []
        table.add_row(*map(_cell, row))
    console.print(table)
    for line in (*response.get("warnings", ()), *map("degraded: {}".format, response["degraded"])):
        print_whole(console, line)
    print_whole(
        console, f"{response['model_version']}, {response['latency_ms']:.2f} ms in the function"
    )


def _cell(value: object) -> Text:
    """Text as it is: an id may hold what Rich takes for markup."""
    return Text("none" if value is None else str(value))
