"""Which digest counts where MODEL_DIGEST, the URI and the sidecar could each name one."""

import hashlib
import shutil
from pathlib import Path

import pytest

import fakes
from feedrank.bundle.layout import MANIFEST
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.model.load import load_model

OTHER = "0" * 64


@pytest.fixture
def digest(demo_bundle: Path) -> str:
    return hashlib.sha256((demo_bundle / MANIFEST).read_bytes()).hexdigest()


def copy_to(bundle: Path, target: Path) -> str:
    shutil.copytree(bundle / "serving", target / "serving")
    return str(target)


def test_a_digest_in_the_uri_does_not_overrule_the_setting(
    demo_bundle: Path, digest: str, tmp_path: Path
) -> None:
    uri = copy_to(demo_bundle, tmp_path / f"sha256-{digest}")
    assert load_model(uri, digest, fakes.settings()).manifest.digest == digest
    with pytest.raises(BundleError, match=f"its SHA-256 is {digest}, expected {OTHER}"):
        load_model(uri, OTHER, fakes.settings())


def test_a_container_serves_no_other_bundle_than_the_one_of_model_digest(
    demo_bundle: Path, digest: str, tmp_path: Path
) -> None:
    uri = copy_to(demo_bundle, tmp_path / f"sha256-{digest}")
    with fakes.container(MODEL_URI=uri, MODEL_DIGEST=digest) as handler:
        assert handler.slot.model().manifest.digest == digest
    with (
        fakes.container(MODEL_URI=uri, MODEL_DIGEST=OTHER) as handler,
        pytest.raises(ModelUnavailableError),
    ):
        handler.slot.model()
