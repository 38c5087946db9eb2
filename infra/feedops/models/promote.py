"""`feedrank promote`: both versions side by side, and the alias moved unless one ranks worse."""

from rich.console import Console
from rich.table import Table

from feedmodel.publish.promotion import Comparison, compare
from feedmodel.publish.promotion import promote as move_alias
from feedops.display import print_whole
from feedops.errors import ModelMissingError, OperationError
from feedops.models.releases import has_store

# Of training, and of rankings that no model made: the same on the same data.
NOT_SHOWN = (
    *("train/", "validation/"),
    *("test/random/", "test/popularity/", "test/click_rate/", "test/known_best/"),
)
DIGITS = 8  # of a digest that are shown, so that 80 columns are enough


def promote(uri: str, *, tracking_uri: str | None, force: bool, console: Console) -> None:
    """Raises OperationError where the version ranks worse or can't be compared, unless `force`."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from feedmodel.publish.registry import reason_of

    if not has_store(tracking_uri):
        raise ModelMissingError(f"{uri}: nothing was trained here; `feedrank train` makes a model")
    try:
        comparison = compare(uri)
        console.print(_table(comparison))
        if comparison.is_same:
            print_whole(console, f"{comparison.candidate.uri} is in production already.")
            return
        if (objection := comparison.objection()) and not force:
            raise OperationError(
                f"{comparison.candidate.uri} is not promoted: {objection}\n"
                "--force promotes it all the same"
            )
        move_alias(comparison)
    except MlflowException as error:
        reason = reason_of(error, mlflow.get_tracking_uri())
        raise OperationError(f"{uri}: MLflow: {reason}") from error
    before = comparison.production
    print_whole(
        console,
        f"Promoted {comparison.candidate.uri}: "
        f"{f'{before.uri} was' if before else 'nothing was'} in production",
    )


def _table(comparison: Comparison) -> Table:
    candidate, production = comparison.candidate, comparison.production
    table = Table(title=candidate.name, title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column(f"candidate\nversion {candidate.version}", justify="right")
    if production:
        table.add_column(f"production\nversion {production.version}", justify="right")
        table.add_column("difference", justify="right")
    columns = [candidate, production] if production else [candidate]
    digests = [each.test_data for each in columns]
    table.add_row("test data", *(digest[:DIGITS] if digest else "not named" for digest in digests))
    names = sorted({name for each in columns for name in each.metrics})
    for name in (name for name in names if not name.startswith(NOT_SHOWN)):
        values = [each.metrics.get(name) for each in columns]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        if production and None not in values:
            cells.append(f"{values[0] - values[1]:+.4f}")  # type: ignore[operator]
        table.add_row(name, *cells)
    return table
