"""Finds the model to serve in MLflow, or trains one, and builds its bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from feedmodel.demo.options import NetworkName, TrainOptions
from feedmodel.publish.names import CANDIDATE, PRODUCTION
from feedops.display import print_whole, steps
from feedops.errors import ModelMissingError, OperationError
from feedops.workspace import BUNDLES
from feedrank.bundle.layout import MANIFEST, Manifest, parse_manifest
from feedrank.errors import BundleError

if TYPE_CHECKING:
    from feedmodel.publish.registry import ModelAddress

SQLITE = "sqlite:///"
NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the latter: no such alias


def model_to_serve(
    model_uri: str | None, network: NetworkName | None, *, train: bool, console: Console
) -> str:
    """A model's URI: `model_uri`, else the newest model with that network, else the one in
    production. If there is none, or if `train`, a model is trained first.

    If nothing is in production, and neither a URI nor a network is given, promotes the candidate.
    """
    if model_uri and (network or train):
        raise OperationError("--model names one model: leave out --network and --train")
    if model_uri:
        return model_uri
    demo = TrainOptions(network=network) if network else TrainOptions()
    current = _newest_of(demo) if network else _by_alias(demo, PRODUCTION)
    if current and not train:
        return current
    candidate = None if train or network else _by_alias(demo, CANDIDATE)
    uri = candidate or _trained(demo, console)
    if not (current or network):
        _promote_the_first(uri, console)
    return uri


def local_bundle(model_uri: str, *, publish: bool, console: Console) -> Path:
    """The directory of the model's bundle. Builds it if there is none, or if `publish`.

    Raises ModelMissingError, or what building one raises.
    """
    address = _resolve(model_uri)
    if address is None:
        raise ModelMissingError(
            f"{model_uri}: MLflow has no such model; `feedrank train` makes one"
        )
    directory = BUNDLES / f"{address.name}-{address.version}"
    if not publish and _is_bundle_of(directory, address):
        return directory
    from feedmodel.publish.build import PublishOptions, build_bundle

    with steps(console, f"Building a bundle of {model_uri}") as say:
        options = PublishOptions(model_uri, bundles=BUNDLES)
        return build_bundle(options, lambda step: say(f"Bundle: {step}")).directory


def newest_bundle() -> Path:
    """The bundle that was built last. Raises ModelMissingError."""
    manifests = BUNDLES.glob(f"*/{MANIFEST}")
    newest = max(manifests, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise ModelMissingError(
            f"no bundle in {BUNDLES}: `feedrank serve` makes one, or name one with --bundle"
        )
    return newest.parents[1]


def manifest_of(bundle: Path) -> Manifest:
    """Raises ModelMissingError if the directory is no bundle."""
    try:
        return parse_manifest((bundle / MANIFEST).read_bytes())
    except (OSError, BundleError) as error:
        raise ModelMissingError(f"{bundle} is no bundle: {error}") from error


def _newest_of(demo: TrainOptions) -> str | None:
    """Training tags each version with its network."""
    if not has_store():
        return None
    import mlflow

    versions = mlflow.MlflowClient().search_model_versions(f"name = '{demo.registered_name}'")
    numbers = [int(v.version) for v in versions if v.tags.get("network") == demo.network]
    return f"models:/{demo.registered_name}/{max(numbers)}" if numbers else None


def _by_alias(demo: TrainOptions, alias: str) -> str | None:
    uri = f"models:/{demo.registered_name}@{alias}"
    return uri if _resolve(uri) else None


def _promote_the_first(uri: str, console: Console) -> None:
    from feedmodel.publish.promotion import compare, promote

    comparison = compare(uri)
    promote(comparison)
    print_whole(console, f"Promoted {comparison.candidate.uri}: nothing was in production")


def _trained(demo: TrainOptions, console: Console) -> str:
    from feedmodel.demo.train import train

    result = train(demo, console)
    return f"models:/{result.registered_name}/{result.version}"


def _resolve(uri: str) -> "ModelAddress | None":
    """None if MLflow has no such model. Raises OperationError if MLflow fails."""
    if not has_store():
        return None
    import mlflow
    from mlflow.exceptions import MlflowException

    from feedmodel.publish.registry import resolve
    from feedmodel.publish.tracking import reason_of

    try:
        return resolve(uri)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        reason = reason_of(error, mlflow.get_tracking_uri())
        raise OperationError(f"{uri}: MLflow: {reason}") from error


def has_store(tracking_uri: str | None = None) -> bool:
    """Whether the tracking store exists; makes it MLflow's. Checked here, because MLflow creates an
    empty database when it is asked for a model."""
    import mlflow

    from feedmodel.publish import tracking

    uri = tracking.tracking_uri(tracking_uri)
    mlflow.set_tracking_uri(uri)
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()


def _is_bundle_of(directory: Path, address: "ModelAddress") -> bool:
    """By run id, because a new tracking store counts versions from 1 again."""
    try:
        return manifest_of(directory).run_id == address.run_id
    except ModelMissingError:
        return False
