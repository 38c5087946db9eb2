"""OpenSSF model signatures: the owner of a key signs a model in MLflow.

The library writes and verifies them: a Sigstore bundle around an in-toto statement that lists the
SHA-256 of every file. Its own command, `model_signing verify key`, verifies the same ones.
"""

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from feedmodel.errors import SigningError
from feedmodel.publish.names import FEATURES
from feedmodel.publish.registry import TrackedModel, fetch_model, resolve, tracking_at
from feedmodel.publish.tracking import tracking_uri as resolve_tracking_uri

if TYPE_CHECKING:
    from model_signing.hashing import Config as Hashing
    from model_signing.signing import Config as Signer
    from model_signing.verifying import Config as Verifier

SIGNATURE = "model.sig"
KMS = "awskms:///"  # and an ARN, an id or alias/NAME, as cosign has it
MAX_REASON = 400  # characters
_DIFFERENCES = "Hash mismatch|Extra files|Missing files"  # the library's texts start so
PASSWORD_VARIABLE = "FEEDRANK_KEY_PASSWORD"  # noqa: S105 a name


def sign_model(uri: str, tracking_uri: str | None, key: str, password: str | None) -> list[str]:
    """Sign the model's artifact, and its run's features directory if it has one; each gets its
    `model.sig`. `key` is a path, or `awskms:///` and the key's name in KMS. Returns the URIs of
    both in MLflow. Raises SigningError or PublishError."""
    signer = _signer(key, password)
    store = resolve_tracking_uri(tracking_uri)
    with tempfile.TemporaryDirectory() as scratch, tracking_at(store):
        model = fetch_model(uri, store, Path(scratch))
        artifacts = {resolve(uri).artifact_uri: model.artifact}
        if model.features:
            artifacts[f"runs:/{model.run_id}/{FEATURES}"] = model.features
        for artifact_uri, directory in artifacts.items():
            signature = Path(scratch) / SIGNATURE
            signer.set_hashing_config(_hashing(directory)).sign(directory, signature)
            _log(signature, artifact_uri)
    return list(artifacts)


def verify_model(model: TrackedModel, uri: str, key: Path) -> None:
    """Raises SigningError unless the artifact, and the run's features directory if it has one, are
    what the key's owner signed: each file, and no other."""
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"{key}: no public EC key that can be read: {error}") from error
    directories = {"the model": model.artifact}
    if model.features:
        directories["the run's features directory"] = model.features
    for name, directory in directories.items():
        if not (directory / SIGNATURE).is_file():
            raise SigningError(
                f"{uri}: {name} is not signed, and {key} is to verify it\n"
                f"sign it, where it was trained: feedrank sign {uri} --key PRIVATE_KEY"
            )
        try:
            _verify(directory, verifier)
        except SigningError as error:
            raise SigningError(
                f"{uri}: {name} is not what the owner of {key} signed: {str(error)[:MAX_REASON]}\n"
                "if you know the change, sign it again: "
                f"feedrank sign {uri} --key PRIVATE_KEY; otherwise train it anew: feedrank train"
            ) from error


def _signer(key: str, password: str | None) -> "Signer":
    from model_signing.signing import Config

    config = Config()
    if key.startswith(KMS):
        from feedmodel.publish.kms import KmsSigner

        config._signer = KmsSigner(key)  # noqa: SLF001 the library has no other way to set one
        return config
    try:
        return config.use_elliptic_key_signer(
            private_key=key,
            password=password.encode() if password else None,  # type: ignore[arg-type]
        )
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"{key}: no private EC key that can be read: {error}") from error


def _log(signature: Path, artifact_uri: str) -> None:
    try:
        get_artifact_repository(artifact_uri).log_artifact(str(signature))
    except (MlflowException, OSError) as error:
        raise SigningError(f"{artifact_uri}: can't be written: {error}") from error


def _verify(directory: Path, verifier: "Verifier") -> None:
    """Raises SigningError that says how the directory differs from what was signed."""
    signature = directory / SIGNATURE
    try:
        verifier.set_hashing_config(_hashing(directory)).verify(directory, signature)
    except InvalidSignature as error:
        raise SigningError("the signature was made with another key") from error
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise SigningError(_without_digests(error)) from error
    uncovered = [
        path
        for path in _ignored_paths(signature)
        if path != SIGNATURE and (directory / path).exists()
    ]
    if uncovered:
        raise SigningError(f"the signature doesn't cover {', '.join(uncovered)}")


def _hashing(directory: Path) -> "Hashing":
    """Every file but the signature; links are refused."""
    from model_signing.hashing import Config

    config = Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    return config.set_ignored_paths(paths=[directory / SIGNATURE], ignore_git_paths=False)


def _ignored_paths(signature: Path) -> list[str]:
    """What a verified signature itself says it doesn't cover."""
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    paths: list[str] = statement["predicate"]["serialization"].get("ignore_paths", [])
    return paths


def _without_digests(error: Exception) -> str:
    """The library's text with each file that differs, without the digests, which it quotes as
    escaped bytes."""
    text = " ".join(str(error).replace("\\", "").split())
    text = re.sub(rf": Expected .*?(?={_DIFFERENCES}|$)", " ", text)
    return re.sub(rf"\[['\"](?={_DIFFERENCES})", "", text).rstrip()
