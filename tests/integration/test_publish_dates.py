"""A bundle holds the times of its training, of its tables and of its publishing."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

import demo
from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.training.runs import log_network, tracked_run
from feedrank.bundle.layout import MANIFEST, Manifest
from feedrank.features.spec_reader import parse_spec

TAG = "feedrank.snapshot_as_of"


def options_of(tracking_uri: str, directory: Path, tags: dict[str, str]) -> PublishOptions:
    spec = demo.demo_spec()
    parsed = parse_spec(spec)
    examples = {i.name: np.ones((4, len(i.features)), np.float32) for i in parsed.inputs}
    with tracked_run(tracking_uri, "dates", "a run"):
        mlflow.set_tags(tags)
        demo.write_features(directory / "features", spec)
        mlflow.log_artifacts(str(directory / "features"), "features")
        model_uri = log_network(demo.network("deep_mlp"), parsed, examples)
    return PublishOptions(model_uri, tracking_uri, bundles=directory / "bundles")


@pytest.fixture
def options(tracking_uri: str, tmp_path: Path) -> PublishOptions:
    return options_of(tracking_uri, tmp_path, {})


def publish(options: PublishOptions) -> Manifest:
    return build_bundle(options).manifest


def run_of(manifest: Manifest, tracking_uri: str) -> Run:
    return mlflow.MlflowClient(tracking_uri).get_run(manifest.run_id)


def test_the_dates_come_from_the_run_its_tag_and_the_clock(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(tracking_uri, tmp_path, {TAG: "2024-05-06T09:08:07.9+02:00"})
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    before = datetime.now(UTC).replace(microsecond=0)
    manifest = publish(options)
    ended_s = run_of(manifest, tracking_uri).info.end_time // 1_000
    assert manifest.trained_at == f"{datetime.fromtimestamp(ended_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert manifest.snapshot_as_of == "2024-05-06T07:08:07Z"
    assert manifest.published_at
    assert before <= datetime.fromisoformat(manifest.published_at) <= datetime.now(UTC)


def test_a_run_that_has_not_ended_gives_its_start(
    options: PublishOptions, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(publish(options), tracking_uri)
    mlflow.MlflowClient(tracking_uri).update_run(run.info.run_id, "RUNNING")
    monkeypatch.setattr(mlflow.entities.RunInfo, "end_time", property(lambda _: None))
    started_s = run.info.start_time // 1_000
    assert publish(options).trained_at == f"{datetime.fromtimestamp(started_s, UTC):%FT%TZ}"


def test_an_option_takes_precedence_over_the_runs_tag(tracking_uri: str, tmp_path: Path) -> None:
    options = options_of(tracking_uri, tmp_path, {TAG: "yesterday"})
    with pytest.raises(PublishError, match=f"tag {TAG}: 'yesterday' is no ISO 8601 time"):
        publish(options)
    manifest = publish(replace(options, as_of="2024-05-06T00:00:00+00:00"))
    assert manifest.snapshot_as_of == "2024-05-06T00:00:00Z"


@pytest.mark.parametrize(
    ("as_of", "message"),
    [
        ("2024-05-06", "has no time zone; write it as 2026-11-24T00:00:00Z"),
        ("2024-05-06T10:00:00", "has no time zone; write it as 2026-11-24T00:00:00Z"),
        ("6 May 2024", "is no ISO 8601 time, such as 2026-11-24T00:00:00Z"),
        ("0001-01-01T00:00:00+01:00", "is no ISO 8601 time"),
        ("2962-05-06T10:00:00Z", "2962-05-06T10:00:00Z lies in the future"),
    ],
)
def test_an_invalid_date_is_refused_before_anything_is_done(
    tmp_path: Path, as_of: str, message: str
) -> None:
    options = PublishOptions("models:/a/1", as_of=as_of, bundles=tmp_path / "bundles")
    with pytest.raises(PublishError, match=r"^--as-of: ") as refused:
        publish(options)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_same_model_keeps_its_date_and_digest_and_a_new_snapshot_changes_them(
    options: PublishOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = publish(options)
    assert first.published_at == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert publish(options) == first
    dated = publish(replace(options, as_of="2024-05-06T00:00:00Z"))
    assert dated.published_at == "2027-01-15T08:00:00Z"
    assert dated.digest != first.digest


@pytest.mark.parametrize("damage", [b"", b"{", json.dumps({"format": 1}).encode()])
def test_a_broken_earlier_manifest_gives_no_date(
    options: PublishOptions, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (build_bundle(options).directory / MANIFEST).write_bytes(damage)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert publish(options).published_at == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize("epoch", ["soon", "9" * 20])
def test_an_invalid_epoch_is_named(
    options: PublishOptions, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(PublishError, match=f"SOURCE_DATE_EPOCH: '{epoch}' is not a number of sec"):
        publish(options)
