"""With a key, a model is published only as its owner signed it.

The library's own command, `model_signing verify key`, is the independent side of each comparison.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey
from typer.testing import CliRunner

from feedmodel.errors import SigningError
from feedmodel.publish import build as publishing
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.signing import SIGNATURE, sign_model
from feedops.cli.main import app
from feedrank.bundle.layout import parse_manifest
from shop import Registry, Shop

PEM = serialization.Encoding.PEM
SIGN_BY_MOTO = KmsResponse.sign


class Keys:
    def __init__(self, directory: Path, password: bytes | None = None) -> None:
        self.private, self.public = directory / "key.pem", directory / "key.pub"
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        form, sealed = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.private.write_bytes(
            key.private_bytes(
                PEM, form, serialization.BestAvailableEncryption(password) if password else sealed
            )
        )
        self.public.write_bytes(
            key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(options: PublishOptions, registry: Registry, keys: Keys) -> PublishOptions:
    """A model and its features directory, both signed."""
    uri = registry.log(Shop())
    client = mlflow.MlflowClient(registry.uri)
    model = client.get_logged_model(uri.removeprefix("models:/"))
    client.log_dict(model.source_run_id, {"note": 1}, "features/note.json")
    sign_model(uri, registry.uri, str(keys.private), None)
    return replace(options, model_uri=uri, verify_key=keys.public)


def _features(registry: Registry, uri: str) -> Path:
    client = mlflow.MlflowClient(registry.uri)
    model = client.get_logged_model(uri.removeprefix("models:/"))
    run = client.get_run(model.source_run_id)
    return Path(run.info.artifact_uri.removeprefix("file://")) / "features"


def _library_exit_code(directory: Path, public: Path) -> int:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(directory)]
    return subprocess.run(
        [*command, "--signature", str(directory / SIGNATURE), "--public_key", str(public)],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": ""},
    ).returncode


def test_a_signed_model_is_published_with_its_signature(
    signed: PublishOptions, registry: Registry, keys: Keys
) -> None:
    artifact = registry.artifact(signed.model_uri)
    assert _library_exit_code(artifact, keys.public) == 0
    built = build_bundle(signed)
    manifest = parse_manifest((built.directory / "serving" / "manifest.json").read_bytes())
    assert SIGNATURE in manifest.files
    assert (built.directory / SIGNATURE).read_bytes() == (artifact / SIGNATURE).read_bytes()


def test_a_signature_of_the_librarys_own_command_verifies(
    signed: PublishOptions, registry: Registry, keys: Keys
) -> None:
    for directory in (registry.artifact(signed.model_uri), _features(registry, signed.model_uri)):
        (directory / SIGNATURE).unlink()
        command = [sys.executable, "-m", "model_signing", "sign", "key", str(directory)]
        options = ["--signature", str(directory / SIGNATURE), "--private_key", str(keys.private)]
        subprocess.run([*command, *options], check=True, capture_output=True)
    build_bundle(signed)
    (registry.artifact(signed.model_uri) / ".gitignore").write_text("")  # by default it covers none
    with pytest.raises(SigningError, match=r"the signature doesn't cover \.gitignore"):
        build_bundle(signed)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


CHANGES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "one bit of the weights": (
        "signed: Signature mismatch: Hash mismatch for 'data/model.pt2'\n",
        lambda artifact, _: _flip(artifact / "data" / "model.pt2"),
    ),
    "a file more": (
        "Extra files found .*added.py",
        lambda artifact, _: (artifact / "added.py").write_text("x = 1"),
    ),
    "a .gitignore more": (
        "Extra files found .*gitignore",
        lambda artifact, _: (artifact / ".gitignore").write_text("x"),
    ),
    "a file less": (
        "Missing files .*conda.yaml",
        lambda artifact, _: (artifact / "conda.yaml").unlink(),
    ),
    "one bit of the signature": (
        "is not what the owner of .* signed",
        lambda artifact, _: _flip(artifact / SIGNATURE),
    ),
    "an empty signature": (
        "is not what the owner of .* signed",
        lambda artifact, _: (artifact / SIGNATURE).write_text("{}"),
    ),
    "one bit of the features": (
        "the run's features directory .*Hash mismatch for 'note.json'\n",
        lambda _, features: _flip(features / "note.json"),
    ),
    "no signature": (
        "the model is not signed.*\n.*feedrank sign models:/m-",
        lambda artifact, _: (artifact / SIGNATURE).unlink(),
    ),
    "features that are not signed": (
        "the run's features directory is not signed",
        lambda _, features: (features / SIGNATURE).unlink(),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_unsigned_change_is_refused_before_the_model_is_loaded(
    change: str,
    signed: PublishOptions,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason, make = CHANGES[change]
    make(registry.artifact(signed.model_uri), _features(registry, signed.model_uri))
    for name in ("load_program", "_read_spec", "read_tables"):
        monkeypatch.setattr(publishing, name, lambda *_: pytest.fail("loaded"))
    with pytest.raises(SigningError, match=reason) as refusal:
        build_bundle(signed)
    assert "feedrank sign" in str(refusal.value)
    assert not list(signed.bundles.glob("*"))


def test_another_key_is_refused(signed: PublishOptions, tmp_path: Path) -> None:
    other = Keys(tmp_path / "other").public
    with pytest.raises(SigningError, match="Key mismatch"):
        build_bundle(replace(signed, verify_key=other))


def test_without_a_key_nothing_is_verified(signed: PublishOptions) -> None:
    assert build_bundle(replace(signed, verify_key=None)).directory.is_dir()


def test_a_key_may_have_a_password(registry: Registry, shop_uri: str, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "sealed", b"sesame")
    with pytest.raises(SigningError, match="no private EC key that can be read"):
        sign_model(shop_uri, registry.uri, str(keys.private), "wrong")
    assert sign_model(shop_uri, registry.uri, str(keys.private), "sesame")


def _sign_digest(self: ECDSAPrivateKey, message: bytes, algorithm: str) -> bytes:
    """As AWS documents it for a message that is a digest, which moto takes for the message."""
    hashed = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    assert self.valid_signing_algorithms == [algorithm]
    return self.private_key.sign(message, ec.ECDSA(Prehashed(hashed[algorithm[-3:]])))


def _checks_its_kind(response: KmsResponse) -> str:
    assert response._get_param("MessageType") == "DIGEST"
    return SIGN_BY_MOTO(response)


@pytest.fixture
def kms(aws: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In another region than the environment's."""
    monkeypatch.setattr(ECDSAPrivateKey, "sign", _sign_digest)
    monkeypatch.setattr(KmsResponse, "sign", _checks_its_kind)
    return boto3.client("kms", region_name="eu-west-1")


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_a_key_in_kms_signs_as_one_of_a_file(
    spec: str, kms: Any, registry: Registry, options: PublishOptions, shop_uri: str
) -> None:
    key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    der = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    public = options.bundles.parent / "kms.pub"
    public.write_bytes(der.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert sign_model(shop_uri, registry.uri, f"awskms:///{key}", None)
    assert _library_exit_code(registry.artifact(shop_uri), public) == 0
    build_bundle(replace(options, model_uri=shop_uri, verify_key=public))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("RSA_2048", "is no EC key"),
        ("ECC_SECG_P256K1", "Unsupported key for curve 'secp256k1'"),
        (None, "NotFoundException"),
    ],
)
def test_a_key_in_kms_that_cannot_sign_is_named(
    spec: str | None, reason: str, kms: Any, registry: Registry, shop_uri: str
) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:alias/nobodys"
    if spec:
        key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    with pytest.raises(SigningError, match=f"awskms:///{key}: .*{reason}"):
        sign_model(shop_uri, registry.uri, f"awskms:///{key}", None)


@pytest.mark.parametrize("text", ["", "not a key", None])
def test_an_invalid_key_is_named(text: str | None, signed: PublishOptions, tmp_path: Path) -> None:
    key = tmp_path / "some.pem"
    if text is not None:
        key.write_text(text)
    with pytest.raises(SigningError, match=r"some\.pem: no public EC key"):
        build_bundle(replace(signed, verify_key=key))
    with pytest.raises(SigningError, match=r"some\.pem: no private EC key"):
        sign_model(signed.model_uri, signed.tracking_uri, str(key), None)


def test_a_key_in_the_environment_applies_to_every_publish(
    registry: Registry, options: PublishOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, uri = Keys(tmp_path / "keys"), registry.log(Shop())
    monkeypatch.chdir(tmp_path)  # bundles go into data/ there
    monkeypatch.setenv("FEEDRANK_VERIFY_KEY", "")  # as of a secret that a CI job doesn't have
    assert "FEEDRANK_VERIFY_KEY: is empty" in CliRunner().invoke(app, ["publish", uri]).output
    monkeypatch.setenv("FEEDRANK_VERIFY_KEY", str(keys.public))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    tables = [f"--{name}={path}" for name, path in options.tables.items()]
    publish = ["publish", uri, f"--spec={options.spec}", *tables]
    refused = CliRunner().invoke(app, publish)
    assert isinstance(refused.exception, SigningError) or refused.exit_code == 1
    assert "is not signed" in refused.output + str(refused.exception)
    assert CliRunner().invoke(app, ["sign", uri, f"--key={keys.private}"]).exit_code == 0
    assert CliRunner().invoke(app, publish).exit_code == 0
