"""`feedrank train`: from nothing to a registered model, in one MLflow run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import mlflow
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from feedmodel import tracking
from feedmodel.data import Feed, generate_feed
from feedmodel.evaluation import Evaluation, evaluate
from feedmodel.networks import DeepMLP, Network, TwoTower
from feedmodel.options import NetworkName, TrainOptions, TrainResult, tracking_uri
from feedmodel.plots import draw
from feedmodel.specs import Priors, deep_mlp_spec, two_tower_spec
from feedmodel.tables import Columns, model_inputs, priors, snapshot, training_columns
from feedmodel.training import Epoch, Examples, Schedule, best_of, fit, score, seeded
from feedmodel.windows import TRAIN_S, split
from feedrank.domain import FloatArray
from feedrank.features.spec import FeatureSpec

__all__ = ["TrainOptions", "TrainResult", "train"]

SPECS: dict[NetworkName, Callable[[Priors], FeatureSpec]] = {
    "deep_mlp": deep_mlp_spec,
    "two_tower": two_tower_spec,
}
NETWORKS: dict[NetworkName, Callable[..., Network]] = {"deep_mlp": DeepMLP, "two_tower": TwoTower}


def train(options: TrainOptions, console: Console | None = None) -> TrainResult:
    """Draw a feed, train and judge a network on it, and register it with all that serving needs.

    Raises TrackingError where MLflow can't be used.
    """
    console = console or Console(stderr=True)
    uri = tracking_uri(options.tracking_uri)
    run = tracking.tracked_run(uri, options.experiment, options.network)
    with run as run_id, _progress(console) as progress:
        with _step(progress, f"Draw {options.interactions:,} interactions"):
            feed = generate_feed(options.users, options.items, options.interactions, options.seed)
        with _step(progress, "Compute features"):
            prior = priors(feed, TRAIN_S)
            spec = SPECS[options.network](prior)
            columns = training_columns(feed, prior)
            inputs = model_inputs(spec, columns)
        mlflow.log_params({k: v for k, v in asdict(options).items() if k != "tracking_uri"})
        network, epochs = _fit(options, inputs, feed, progress)
        with _step(progress, "Evaluate"):
            evaluation = _evaluate(network, inputs, columns, feed)
        with _step(progress, "Log to MLflow"):
            mlflow.log_metrics(evaluation.metrics() | {"best_epoch": best_of(epochs).number})
            for name, figure in draw(epochs, evaluation).items():
                mlflow.log_figure(figure, f"plots/{name}.png")
            tracking.log_features(spec, snapshot(feed, feed.end_s, prior))
            model_uri = tracking.log_network(network, spec, inputs)
            version = tracking.register(
                model_uri,
                run_id,
                options.registered_name,
                options.alias,
                {"network": options.network},
            )
    console.print(_summary(options, version, evaluation))
    return TrainResult(run_id, model_uri, options.registered_name, version, evaluation.metrics())


def _fit(
    options: TrainOptions, inputs: dict[str, FloatArray], feed: Feed, progress: Progress
) -> tuple[Network, list[Epoch]]:
    windows = split(feed)
    learn, validate = (
        Examples({name: rows[window] for name, rows in inputs.items()}, feed.clicked[window])
        for window in (windows.train, windows.validation)
    )
    schedule = Schedule(options.epochs, options.batch_size, options.learning_rate, options.patience)
    batches = schedule.epochs * schedule.batches(len(learn))
    with (
        seeded(options.seed),
        _step(progress, f"Train {options.network}", batches) as advance,
    ):
        network = NETWORKS[options.network](*learn.inputs.values())
        epochs = fit(
            network, learn, validate, schedule, on_batch=advance, on_epoch=tracking.log_epoch
        )
    return network, epochs


def _evaluate(
    network: Network, inputs: dict[str, FloatArray], columns: Columns, feed: Feed
) -> Evaluation:
    test = split(feed).test
    examples = Examples({name: rows[test] for name, rows in inputs.items()}, feed.clicked[test])
    return evaluate(
        feed.slate[test],
        examples.clicked,
        model=score(network, examples),
        popularity=columns["item_popularity"][test],
        click_rate=columns["item_ctr"][test],
        probability=feed.probability[test],
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def _step(progress: Progress, text: str, total: int = 1) -> Iterator[Callable[[], None]]:
    """One bar; what comes out advances it by one. It is full at the end, however short it fell."""
    if not progress.console.is_terminal:
        progress.console.print(text, highlight=False)
    task = progress.add_task(text, total=total)
    yield partial(progress.advance, task)
    progress.update(task, completed=total)


def _summary(options: TrainOptions, version: str, evaluation: Evaluation) -> Table:
    table = Table(
        title=f"{options.registered_name} version {version} ({options.network}), test window: "
        f"{evaluation.interactions:,} interactions, {evaluation.slates:,} slates with clicks",
        caption=f"{evaluation.ndcg_gap_covered:.0%} of the way in NDCG@10 "
        "from popularity to the known best",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("ranking")
    for heading in ("NDCG@10", "precision@10", "AUC", "log loss", "calibration error"):
        table.add_column(heading, justify="right")
    for name, quality in evaluation.rankings().items():
        numbers = (
            quality.ndcg_at_10,
            quality.precision_at_10,
            quality.auc,
            quality.log_loss,
            quality.calibration_error,
        )
        cells = ("" if number is None else f"{number:.4f}" for number in numbers)
        table.add_row(name, *cells, style="bold" if name == "model" else None)
    return table
