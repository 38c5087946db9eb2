"""`feedrank train`: from nothing to a registered model, in one MLflow run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import mlflow
import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from feedmodel.demo import run_log
from feedmodel.demo.baselines import Evaluation, WithUnknown, evaluate
from feedmodel.demo.datasets import log_data
from feedmodel.demo.expected_scores import expected_scores
from feedmodel.demo.features import feature_tables, priors, training_columns
from feedmodel.demo.feed import Feed, generate_feed
from feedmodel.demo.networks import DeepMLP, Network, TwoTower
from feedmodel.demo.options import NetworkName, TrainOptions, TrainResult
from feedmodel.demo.plots import draw
from feedmodel.demo.specs import Priors, deep_mlp_spec, two_tower_spec
from feedmodel.demo.windows import TRAIN_S, split
from feedmodel.publish.tracking import tracking_uri
from feedmodel.training.fit import (
    Epoch,
    Examples,
    Schedule,
    best_of,
    fit,
    optimizer_of,
    predict,
    seeded,
)
from feedmodel.training.matrix import FeatureColumns, column_inputs
from feedmodel.training.runs import log_features, log_network, register, tracked_run
from feedmodel.training.unknown import (
    SHARE_IN_TEST,
    partly_unknown,
    unknown_in_test,
    with_unknown,
)
from feedrank.domain import FloatArray
from feedrank.features.spec import FeatureSpec

__all__ = ["TrainOptions", "TrainResult", "train"]

SPECS: dict[NetworkName, Callable[[Priors], FeatureSpec]] = {
    "deep_mlp": deep_mlp_spec,
    "two_tower": two_tower_spec,
}
NETWORKS: dict[NetworkName, Callable[..., Network]] = {"deep_mlp": DeepMLP, "two_tower": TwoTower}


def train(options: TrainOptions, console: Console | None = None) -> TrainResult:
    """Generate a feed, train and evaluate a network on it, and register it with all that serving
    needs.

    Raises TrackingError where MLflow can't be used.
    """
    console = console or Console(stderr=True)
    uri = tracking_uri(options.tracking_uri)
    run = tracked_run(uri, options.experiment, options.network, run_log.run_tags())
    with run as run_id, _progress(console) as progress:
        with _step(progress, f"Generate {options.interactions:,} interactions"):
            feed = generate_feed(options.users, options.items, options.interactions, options.seed)
        with _step(progress, "Compute features"):
            prior = priors(feed, TRAIN_S)
            spec = SPECS[options.network](prior)
            columns = training_columns(feed, prior)
        run_log.log_options(options)
        test_data = log_data(feed, split(feed), options)
        network, epochs = _fit(options, spec, columns, feed, progress)
        with _step(progress, "Evaluate"):
            evaluation = _evaluate(network, spec, columns, feed)
        with _step(progress, "Log to MLflow"):
            tables = feature_tables(feed, feed.end_s, prior)
            expected = expected_scores(network, spec, tables, feed)
            log_features(spec, tables, feed.end_s, expected)
            tags = run_log.STARTED_BY | {MLFLOW_RUN_NOTE: run_log.DESCRIPTION}
            model_uri = log_network(network, spec, column_inputs(spec, columns), tags)
            metrics = evaluation.metrics() | {"train/best_epoch": best_of(epochs).number}
            run_log.log_quality(metrics, model_uri, test_data)
            for name, figure in draw(epochs, evaluation).items():
                mlflow.log_figure(figure, f"plots/{name}.png")
            version = _register(options, model_uri, run_id)
    console.print(_summary(options, version, evaluation))
    return TrainResult(run_id, model_uri, options.registered_name, version, evaluation.metrics())


def _register(options: TrainOptions, model_uri: str, run_id: str) -> str:
    return register(
        model_uri,
        run_id,
        options.registered_name,
        options.alias,
        {"network": options.network},
        description=run_log.DESCRIPTION,
    )


def _fit(
    options: TrainOptions,
    spec: FeatureSpec,
    columns: FeatureColumns,
    feed: Feed,
    progress: Progress,
) -> tuple[Network, list[Epoch]]:
    windows = split(feed)
    train_examples = _examples(
        spec, partly_unknown(spec, columns, options.seed), feed, windows.train
    )
    validation = _examples(spec, columns, feed, windows.validation)
    schedule = Schedule(options.epochs, options.batch_size, options.learning_rate, options.patience)
    batches = schedule.epochs * schedule.batches(len(train_examples))
    with (
        seeded(options.seed),
        _step(progress, f"Train {options.network}", batches) as advance,
    ):
        network = NETWORKS[options.network](*train_examples.inputs.values())
        run_log.log_architecture(network, optimizer_of(network, schedule))
        epochs = fit(
            network,
            train_examples,
            validation,
            schedule,
            on_batch=advance,
            on_epoch=run_log.log_epoch,
        )
    return network, epochs


def _evaluate(
    network: Network, spec: FeatureSpec, columns: FeatureColumns, feed: Feed
) -> Evaluation:
    test = split(feed).test

    def predictions(columns: FeatureColumns) -> FloatArray:
        return predict(network, _examples(spec, columns, feed, test))

    unknown = unknown_in_test(len(feed.clicked))
    everyone = np.ones(len(feed.clicked), dtype=np.bool_)
    return evaluate(
        feed.slate[test],
        feed.clicked[test],
        model=predictions(columns),
        with_unknown=WithUnknown(
            users=predictions(with_unknown(spec, columns, "user", everyone)),
            items=predictions(with_unknown(spec, columns, "item", unknown)),
            unknown_items=unknown[test],
        ),
        popularity=columns["item_popularity"][test],
        click_rate=columns["item_ctr"][test],
        probability=feed.probability[test],
    )


def _examples(spec: FeatureSpec, columns: FeatureColumns, feed: Feed, window: slice) -> Examples:
    inputs = column_inputs(spec, {name: column[window] for name, column in columns.items()})
    return Examples(inputs, feed.clicked[window])


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
    """One progress bar, and the function that advances it by one. It is full at the end, even after
    an early stop."""
    if not progress.console.is_terminal:
        progress.console.print(text, highlight=False)
    task = progress.add_task(text, total=total)
    yield partial(progress.advance, task)
    progress.update(task, completed=total)


def _summary(options: TrainOptions, version: str, evaluation: Evaluation) -> Table:
    table = Table(
        title=f"{options.registered_name} version {version} ({options.network}), test window: "
        f"{evaluation.interactions:,} interactions, {evaluation.slates:,} slates with clicks",
        caption=f"Of the way in NDCG@10 to the known best: {evaluation.way_from_popularity:.0%} "
        f"from popularity, {evaluation.way_from_click_rate:.0%} from the click rate. "
        f"Unknown items: {SHARE_IN_TEST:.0%} of those shown, ranked last.",
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
