"""`feedrank promote`: compares two versions, and moves the alias unless the new one is worse."""

from rich.console import Console
from rich.table import Table

from feedmodel.publish.promotion import Comparison, compare
from feedmodel.publish.promotion import promote as move_alias
from feedops.display import print_whole
from feedops.errors import ModelMissingError, OperationError
from feedops.models.bundles import has_store

# Metrics of training, and of baselines, which are the same for every model on the same data.
NOT_SHOWN = (
    *("train/", "validation/"),
    *("test/random/", "test/popularity/", "test/click_rate/", "test/known_best/"),
)
DIGITS = 8  # shown of a digest, so that the table fits 80 columns


def promote(uri: str, *, tracking_uri: str | None, force: bool, console: Console) -> None:
    """Raises OperationError if the version ranks worse or can't be compared, unless `force`."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from feedmodel.publish.tracking import reason_of

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
    digests = [column.test_data for column in columns]
    table.add_row("test data", *(digest[:DIGITS] if digest else "not named" for digest in digests))
    names = sorted({name for column in columns for name in column.metrics})
    for name in (name for name in names if not name.startswith(NOT_SHOWN)):
        values = [column.metrics.get(name) for column in columns]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        if production and None not in values:
            cells.append(f"{values[0] - values[1]:+.4f}")  # type: ignore[operator]
        table.add_row(name, *cells)
    return table
