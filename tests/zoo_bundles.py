"""Models of the zoo, logged to MLflow and published."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from feedmodel.publish.build import BuiltBundle, PublishOptions, build_bundle
from feedmodel.training.runs import tracked_run
from feedops.local.emulator import Function
from feedops.local.pool import EnvironmentPool
from feedops.workspace import FUNCTION
from zoo import Known, LambdaMart

EXAMPLE_ROWS = 6


def _log(known: Known, uri: str) -> str:
    """As README's "Your own model" says."""
    spec, example = [], []
    for entry in known.spec["inputs"]:
        rows = -1 if entry.get("per", "item") == "item" else 1
        width = sum(feature.get("size") or 1 for feature in entry["features"])
        shape = known.shapes.get(entry["name"], (rows, width))
        kind = np.dtype(entry.get("type", "float32"))
        spec.append(TensorSpec(kind, shape, entry["name"]))
        example.append(np.zeros([EXAMPLE_ROWS if n == -1 else n for n in shape], kind))
    module = known.module()
    if isinstance(module, LambdaMart):
        with tracked_run(uri, "zoo", "a run"):
            return mlflow.onnx.log_model(
                module.to_onnx(), name="zoo", signature=ModelSignature(Schema(spec)),
                pip_requirements=["onnx"],
            ).model_uri  # fmt: skip
    with warnings.catch_warnings(), tracked_run(uri, "zoo", "a run"):
        warnings.filterwarnings("ignore", r"\s*The tensor attributes?", UserWarning)
        return mlflow.pytorch.log_model(
            module,
            name="zoo",
            serialization_format="pt2",
            signature=ModelSignature(Schema(spec)),
            input_example=tuple(example) if len(example) > 1 else example[0],
            pip_requirements=["torch"],
        ).model_uri


def publish(
    known: Known,
    frames: Mapping[str, pd.DataFrame],
    uri: str,
    directory: Path,
    expected: pd.DataFrame | None = None,
) -> BuiltBundle:
    """`expected` is what the team's own evaluation gave."""
    expect = None if expected is None else directory / "expected.parquet"
    if expected is not None:
        expected.to_parquet(expect)
    for name, frame in frames.items():
        frame.to_parquet(directory / f"{name}.parquet")
    (directory / "spec.json").write_text(json.dumps(known.spec, sort_keys=True))  # as MLflow does
    return build_bundle(
        PublishOptions(
            _log(known, uri),
            uri,
            spec=directory / "spec.json",
            tables={name: directory / f"{name}.parquet" for name in frames},  # type: ignore[misc]
            bundles=directory / "bundles",
            precompute=known.precompute,
            expect=expect,
        )
    )


async def responses_of(bundle: Path, events: list[bytes], directory: Path) -> list[dict[str, Any]]:
    """The bodies that the local Lambda gives for these events."""
    function = Function(FUNCTION, {"MODEL_URI": str(bundle)}, timeout_s=60)
    async with EnvironmentPool(
        function, 1, logs=directory / "logs", scratch=directory / "run", longest_wait_s=60.0
    ) as pool:
        responses = [json.loads(await pool.invoke(event)) for event in events]
    assert {response["statusCode"] for response in responses} == {200}
    return [json.loads(response["body"]) for response in responses]
