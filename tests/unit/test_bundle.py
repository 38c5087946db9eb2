"""What of a bundle is verified before it serves, and that a wrong one is refused by name."""

import ast
import hashlib
import json
import re
import resource
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

import endless
import fakes
import feedbench
import feedmodel
import feedops
import feedrank
from feedrank.bundle import sources as source
from feedrank.bundle.fetch import fetch_bundle
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    FORMAT,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
    parse_manifest,
    sidecar,
)
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.model import self_test
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.model.load import Model, load_model
from feedrank.model.slot import ModelSlot
from stack.hook import load_canary

SERVED = [ONNX_MODEL, SNAPSHOT, GOLDEN]
PACKAGES = [Path(package.__path__[0]) for package in (feedrank, feedmodel, feedops, feedbench)]


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))


def _load(bundle: Path, digest: str = "", **variables: str) -> Model:
    return load_model(str(bundle), digest, fakes.settings(**variables))


def _digest(bundle: Path) -> str:
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def _rewrite(bundle: Path, **changes: Any) -> None:
    """Changes the manifest and its digest, so that only the content is wrong."""
    data = json.loads((bundle / MANIFEST).read_bytes()) | changes
    (bundle / MANIFEST).write_text(json.dumps(data))
    (bundle / DIGEST_SIDECAR).write_bytes(sidecar(_digest(bundle)))


def _replace(bundle: Path, name: str, content: bytes) -> None:
    """Changes a file, and its size and hash in the manifest."""
    (bundle / name).write_bytes(content)
    files = json.loads((bundle / MANIFEST).read_bytes())["files"]
    files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _rewrite(bundle, files=files)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _manifest(files: bytes) -> bytes:
    return (
        b'{"format": %d, "name": "a", "version": "1", "run_id": "", "network": "", "metrics": {}, '
        b'"trained_at": null, "snapshot_as_of": null, "published_at": null, '
        b'"batches": true, "feature_spec": {}, "built_with": {}, "files": %s}' % (FORMAT, files)
    )


def _golden(more: bytes) -> bytes:
    return b'{"cases": [{"user_id": 1, "context": {}, "time_s": 0, ' + more + b"}]}"


def test_one_module_names_the_files_of_a_bundle() -> None:
    paths = (MANIFEST, DIGEST_SIDECAR, ONNX_MODEL, SNAPSHOT, GOLDEN)  # MLflow has a model.pt2, too
    names = "|".join(re.escape(PurePosixPath(path).name) for path in paths)
    modules = [path for package in PACKAGES for path in package.rglob("*.py")]
    assert [
        path.name
        for path in modules
        if any(re.search(f"[/\"']({names})", text) for text in _texts(path))
    ] == ["layout.py"]


def _texts(path: Path) -> list[str]:
    """String literals but docstrings."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        repr(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and id(node) not in docs
    ]


def test_the_canary_has_the_same_names() -> None:
    """It is a function of its own, without feedrank."""
    canary = load_canary()
    assert (canary.MANIFEST, canary.GOLDEN) == (MANIFEST, GOLDEN)


def test_a_good_bundle_loads(demo_bundle: Path) -> None:
    model = _load(demo_bundle)
    assert model.manifest.model_version == "feed_ranker-1"
    assert model.manifest.digest == _digest(demo_bundle)
    assert model.manifest.public().keys() == {
        "name", "version", "network", "batches", "run_id", "digest", "metrics", "feature_spec",
        "built_with", "trained_at", "snapshot_as_of", "published_at",
    }  # fmt: skip
    assert model.degraded == ()


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("name", [MANIFEST, DIGEST_SIDECAR, ONNX_MODEL, SNAPSHOT, GOLDEN])
def test_one_wrong_bit_refuses_the_bundle_and_names_the_file(
    bundle: Path, name: str, where: str, engine: str
) -> None:
    served = TORCH_MODEL if (name, engine) == (ONNX_MODEL, "torch") else name
    size = 64 if name == DIGEST_SIDECAR else (bundle / served).stat().st_size
    _flip(bundle / served, {"first": 0, "middle": size // 2, "last": size - 1}[where])
    with pytest.raises(BundleError) as error:
        _load(bundle, MODEL_ENGINE=engine)
    # A wrong digest in the sidecar looks like a wrong manifest: they disagree.
    names = (MANIFEST, DIGEST_SIDECAR) if name == DIGEST_SIDECAR else served
    assert str(error.value).startswith(names)


def test_a_wrong_byte_in_a_file_that_the_engine_does_not_read_is_ignored(bundle: Path) -> None:
    _flip(bundle / TORCH_MODEL, 100)
    assert _load(bundle).manifest.model_version == "feed_ranker-1"


@pytest.mark.parametrize("name", [MANIFEST, DIGEST_SIDECAR, *SERVED])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"^{name}: not found in "):
        _load(bundle)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_truncated_file_is_named(bundle: Path, name: str, cut: int) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:cut])
    with pytest.raises(BundleError, match=f"^{name}: {cut} bytes, "):
        _load(bundle)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"^{MANIFEST}: not found in {tmp_path}/none"):
        _load(tmp_path / "none")


def test_a_given_digest_takes_precedence_over_the_sidecar(bundle: Path) -> None:
    digest = _digest(bundle)
    (bundle / DIGEST_SIDECAR).unlink()
    assert _load(bundle, digest).manifest.digest == digest
    with pytest.raises(BundleError, match=f"^{MANIFEST}: its SHA-256 is {digest}, expected 00"):
        _load(bundle, "0" * 64)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_digest_in_the_uri_pins_the_bundle(bundle: Path, slash: str) -> None:
    right = bundle.rename(bundle.with_name(f"sha256-{_digest(bundle)}"))
    (right / DIGEST_SIDECAR).unlink()
    assert load_model(f"{right}{slash}", "", fakes.settings()).manifest.digest == _digest(right)
    wrong = right.rename(right.with_name(f"sha256-{'0' * 64}"))
    with pytest.raises(BundleError, match="expected 0000"):
        load_model(f"{wrong}{slash}", "", fakes.settings())


def test_a_manifest_that_was_changed_together_with_its_sidecar_fails_a_pinned_digest(
    bundle: Path,
) -> None:
    digest = _digest(bundle)
    _rewrite(bundle, version="2")
    assert _load(bundle).manifest.model_version == "feed_ranker-2"
    with pytest.raises(BundleError, match=MANIFEST):
        _load(bundle, digest)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "serving/../../x"])
def test_a_path_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_bytes())["files"]
    _rewrite(bundle, files=files | {name: {"size": 1, "sha256": "0" * 64}})
    with pytest.raises(BundleError, match=rf"^{MANIFEST}: '{name}' leads out of the bundle"):
        _load(bundle)


@pytest.mark.parametrize("name", SERVED)
def test_a_file_that_the_manifest_does_not_list_is_not_served(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_bytes())["files"]
    del files[name]
    _rewrite(bundle, files=files)
    with pytest.raises(BundleError, match=f"^{name}: the manifest doesn't list it"):
        _load(bundle)


@pytest.mark.parametrize("version", [1, FORMAT + 1, str(FORMAT), None])
def test_another_format_is_refused(bundle: Path, version: Any) -> None:
    _rewrite(bundle, format=version)
    with pytest.raises(
        BundleError, match=f"^{MANIFEST}: format {version}, this code reads {FORMAT}"
    ):
        _load(bundle)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"[" * 200_000,
        b'"x"',
        b"{}",
        b'{"format": 1}',
        b'{"format": %d}' % FORMAT,
        _manifest(b"[]"),
        _manifest(b'{"a": {"size": 1}}'),
        _manifest(b'{"a": 5}'),
        _manifest(b'{"a": {"size": -1, "sha256": "%s"}}' % (b"0" * 64)),
        _manifest(b'{"a": {"size": 1.0, "sha256": "%s"}}' % (b"0" * 64)),
        _manifest(b'{"a": {"size": 1, "sha256": "%s"}}' % (b"G" * 64)),
        _manifest(b'{"a": {"size": 1, "sha256": "%s", "more": 1}}' % (b"0" * 64)),
        _manifest(b'{"a\\nb": {"size": 1, "sha256": "%s"}}' % (b"0" * 64)),
        _manifest(b"{}").replace(b'"run_id"', b'"name": "b", "run_id"'),
        _manifest(b"{}").replace(b'"run_id"', b'"more": 1, "run_id"'),
    ],
)
def test_an_invalid_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError, match=f"^{MANIFEST}: "):
        parse_manifest(raw)


def test_the_template_of_those_manifests_is_valid() -> None:
    """So each manifest above is refused for its one mistake."""
    assert parse_manifest(_manifest(b"{}")).batches


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("name", "../a"),
        ("name", "a\n"),
        ("name", ""),
        ("name", " a"),
        ("name", "a" * 100_000),
        ("name", 5),
        ("version", {}),
        ("version", None),
        ("version", "1/2"),
        ("run_id", "a\nb"),
        ("network", ["deep"]),
        ("network", "\ud800"),
        ("feature_spec", {"inputs": [{"name": "x", "features": [{"default": 10**30}]}]}),
        ("batches", "true"),
        ("batches", 1),
        ("metrics", {"auc": float("nan")}),
        ("metrics", {"auc": float("inf")}),
        ("metrics", {"auc": "0.7"}),
        ("metrics", {"auc": True}),
        ("metrics", {"auc": 10**400}),
        ("metrics", [0.7]),
        ("trained_at", "yesterday"),
        ("trained_at", "2026-02-30T00:00:00Z"),
        ("snapshot_as_of", "2026-11-25T09:30:00+01:00"),
        ("published_at", 1_764_000_000),
        ("built_with", {"torch": 2}),
        ("feature_spec", "spec"),
        ("files", []),
    ],
)
def test_an_invalid_field_of_the_manifest_is_named(bundle: Path, field: str, value: Any) -> None:
    _rewrite(bundle, **{field: value})
    with pytest.raises(ModelUnavailableError) as error:
        _load(bundle)
    reason = str(error.value)
    assert reason.startswith((f"{MANIFEST}: not JSON", f"{MANIFEST}: {field}", "feature spec"))
    assert len(reason) < 500


@pytest.mark.parametrize("name", ["модель", "feed ranker (new)", "a=b@c", "m-0123"])
def test_every_name_that_mlflow_allows_is_valid(bundle: Path, name: str) -> None:
    _rewrite(bundle, name=name)
    assert _load(bundle).manifest.name == name


@pytest.mark.parametrize(
    "line",
    ["{}", "{}  manifest.json", "{}\n", "{}  manifest.json\nrm -rf /\n", "{} manifest.json\n",
     " {}  manifest.json\n", "{}  other.json\n", ""],
)  # fmt: skip
def test_an_invalid_sidecar_is_refused(bundle: Path, line: str) -> None:
    (bundle / DIGEST_SIDECAR).write_text(line.format(_digest(bundle)))
    with pytest.raises(BundleError, match=f"^{DIGEST_SIDECAR}: "):
        _load(bundle)


def test_a_manifest_is_read_up_to_a_limit(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b" " * (2 << 20))
    with pytest.raises(BundleError, match=f"^{MANIFEST}: more than the 1048576 bytes that are"):
        _load(bundle)


def test_an_inconsistent_spec_is_refused(bundle: Path) -> None:
    spec = json.loads((bundle / MANIFEST).read_bytes())["feature_spec"]
    spec["inputs"][0]["features"][0]["source"] = "shop"
    _rewrite(bundle, feature_spec=spec)
    with pytest.raises(ModelUnavailableError, match=r"inputs\[0\]\.features\[0\]\.source"):
        _load(bundle)


def test_a_spec_with_another_width_than_the_tables_is_refused(bundle: Path) -> None:
    spec = json.loads((bundle / MANIFEST).read_bytes())["feature_spec"]
    del spec["inputs"][0]["features"][0]
    _rewrite(bundle, feature_spec=spec)
    with pytest.raises(BundleError, match=rf"{SNAPSHOT}: users\.values"):
        _load(bundle)


def test_a_spec_in_another_order_fails_the_golden_scores(bundle: Path) -> None:
    spec = json.loads((bundle / MANIFEST).read_bytes())["feature_spec"]
    spec["inputs"][0]["features"].reverse()
    _rewrite(bundle, feature_spec=spec)
    with pytest.raises(BundleError, match=f"^{GOLDEN}: scores are "):
        _load(bundle)


@pytest.mark.parametrize("apart", [1e-4, -1e-4])
def test_one_wrong_golden_score_refuses_the_bundle(bundle: Path, apart: float) -> None:
    golden = json.loads((bundle / GOLDEN).read_bytes())
    golden["cases"][-1]["scores"][3] += apart
    _replace(bundle, GOLDEN, json.dumps(golden).encode())
    with pytest.raises(BundleError, match=f"^{GOLDEN}: scores are .* from the expected ones"):
        _load(bundle)


@pytest.mark.parametrize("more", [0.9, -0.9])
def test_a_model_with_scores_outside_zero_to_one_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, more: float
) -> None:
    golden = json.loads((bundle / GOLDEN).read_bytes())
    for case in golden["cases"]:
        case["scores"] = [score + more for score in case["scores"]]
    _replace(bundle, GOLDEN, json.dumps(golden).encode())
    real = OnnxEngine.score
    monkeypatch.setattr(OnnxEngine, "score", lambda *arguments: real(*arguments) + np.float32(more))
    with pytest.raises(BundleError, match=rf"^{GOLDEN}: the model gives a score outside \[0, 1\]"):
        _load(bundle)


def test_a_golden_score_within_the_tolerance_is_accepted(bundle: Path) -> None:
    golden = json.loads((bundle / GOLDEN).read_bytes())
    golden["cases"][-1]["scores"][3] += 5e-6
    _replace(bundle, GOLDEN, json.dumps(golden).encode())
    assert _load(bundle).manifest.version == "1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'"x"',
        b"{}",
        b'{"cases": []}',
        b'{"cases": [5]}',
        _golden(b'"item_ids": [1]'),
        _golden(b'"item_ids": [1], "scores": []'),
        _golden(b'"item_ids": [1, 2], "scores": [0.5]'),
        _golden(b'"item_ids": ["a"], "scores": [0.5]'),
        _golden(b'"item_ids": [true], "scores": [0.5]'),
        _golden(b'"item_ids": [-1], "scores": [0.5]'),
        _golden(b'"item_ids": [9223372036854775808], "scores": [0.5]'),
        _golden(b'"item_ids": [], "scores": []'),
        _golden(b'"item_ids": [%s1], "scores": [0.5]' % (b"1, " * 100)),
        _golden(b'"item_ids": [1], "scores": [NaN]'),
        _golden(b'"item_ids": [1], "scores": [1e999]'),
        _golden(b'"item_ids": [1], "scores": [0.5], "more": 1'),
        _golden(b'"item_ids": [1], "scores": [0.5], "scores": [0.5]'),
        _golden(b'"item_ids": [1], "scores": [0.5]').replace(b'"time_s": 0', b'"time_s": 1e300'),
        _golden(b'"item_ids": [1], "scores": [0.5]').replace(b"{}", b'{"device": 5}'),
        b'{"cases": ' + b"[" * 200_000,
    ],
)
def test_invalid_golden_cases_refuse_the_bundle(bundle: Path, content: bytes) -> None:
    _replace(bundle, GOLDEN, content)
    with pytest.raises(BundleError, match=f"^{GOLDEN}: "):
        _load(bundle)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x08\x08"])
@pytest.mark.parametrize(("engine", "name"), [("onnx", ONNX_MODEL), ("torch", TORCH_MODEL)])
def test_an_invalid_model_file_refuses_the_bundle(
    bundle: Path, engine: str, name: str, content: bytes
) -> None:
    _replace(bundle, name, content)
    with pytest.raises(BundleError, match=f"^{name}: "):
        _load(bundle, MODEL_ENGINE=engine)


def test_an_unreadable_file_is_named_in_the_log(
    bundle: Path, log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(source, "_open_without_waiting", refuse)
    slot = ModelSlot(lambda: _load(bundle), fallback=None, retry_s=5.0)
    slot.load()
    assert str(bundle / MANIFEST) in log()[0]["reason"]


def test_only_the_requested_files_are_read(bundle: Path) -> None:
    for name in (TORCH_MODEL, SNAPSHOT, GOLDEN):
        (bundle / name).unlink()
    fetched = fetch_bundle(str(bundle), "", bundle, [ONNX_MODEL])
    assert fetched.files.keys() == {ONNX_MODEL}
    assert bytes(fetched.files[ONNX_MODEL]) == (bundle / ONNX_MODEL).read_bytes()


def test_a_model_that_never_ends_is_stopped_and_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "LONGEST_S", 0.2)
    _replace(bundle, ONNX_MODEL, endless.in_time())
    with pytest.raises(BundleError, match=rf"^{GOLDEN}: the model runs for more than 0\.2 s"):
        _load(bundle)


def test_a_model_that_needs_all_memory_is_refused(bundle: Path) -> None:
    _replace(bundle, ONNX_MODEL, endless.in_memory())
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(BundleError, match=rf"^{GOLDEN}: .*(allocate memory|bad_alloc)"):
        _load(bundle)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_a_memory_limit_is_reset_to_its_value_at_the_start() -> None:
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    with self_test.bounded_memory(1_000):
        (outer, _) = resource.getrlimit(resource.RLIMIT_DATA)
        with self_test.bounded_memory(1_000):
            pass
        assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    assert 1 << 30 <= outer < 1 << 40


def test_the_layers_bundle_replaces_a_model_that_never_ends(
    demo_bundle: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "LONGEST_S", 0.2)
    _replace(bundle, ONNX_MODEL, endless.in_time())
    slot = ModelSlot(lambda: _load(bundle), lambda: _load(demo_bundle), retry_s=5.0)
    slot.load()
    assert slot.model().degraded == ("model:layer",)
