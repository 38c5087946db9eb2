"""OpenSSF model signatures: whoever has the key says that a model in MLflow is theirs.

The library writes and checks them (a Sigstore bundle around an in-toto statement that lists the
SHA-256 of every file); `model_signing verify key` of its own command line checks the same ones.
"""

import base64
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from feedmodel.errors import SigningError
from feedmodel.publish.names import FEATURES
from feedmodel.publish.registry import TrackedModel, fetch_model, resolve, tracking_at
from feedmodel.publish.tracking import tracking_uri as tracking_at_uri

if TYPE_CHECKING:
    from model_signing.hashing import Config

SIGNATURE = "model.sig"
_DIFFERENCES = "Hash mismatch|Extra files|Missing files"  # how the library's texts begin
PASSWORD_VARIABLE = "FEEDRANK_KEY_PASSWORD"  # noqa: S105 a name


def sign_model(uri: str, tracking_uri: str | None, key: Path, password: str | None) -> list[str]:
    """Sign the model's artifact, and the features folder of its run where it has one; each gets its
    `model.sig`. What was signed, by its place in MLflow. Raises SigningError or PublishError."""
    from model_signing import signing

    try:
        signer = signing.Config().use_elliptic_key_signer(
            private_key=key,
            password=password.encode() if password else None,  # type: ignore[arg-type]
        )
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"{key}: no private EC key that can be read: {error}") from error
    at = tracking_at_uri(tracking_uri)
    signed = []
    with tempfile.TemporaryDirectory() as scratch, tracking_at(at):
        model = fetch_model(uri, at, Path(scratch))
        for folder, place in _places(model, uri):
            signature = Path(scratch) / SIGNATURE
            signer.set_hashing_config(_hashing(folder)).sign(folder, signature)
            try:
                get_artifact_repository(place).log_artifact(str(signature))
            except (MlflowException, OSError) as error:
                raise SigningError(f"{place}: can't be written: {error}") from error
            signed.append(place)
    return signed


def _places(model: TrackedModel, uri: str) -> Iterator[tuple[Path, str]]:
    yield model.artifact, resolve(uri).artifact_uri
    if model.features:
        yield model.features, f"runs:/{model.run_id}/{FEATURES}"


def verify_model(model: TrackedModel, uri: str, key: Path) -> None:
    """Raises SigningError unless the artifact, and the run's features folder where it has one, are
    what the key's owner signed: each file, and no other."""
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"{key}: no public EC key that can be read: {error}") from error
    folders = {"the model": model.artifact}
    if model.features:
        folders["the run's features folder"] = model.features
    for name, folder in folders.items():
        signature = folder / SIGNATURE
        if not signature.is_file():
            raise SigningError(
                f"{uri}: {name} is not signed, and {key} is to verify it\n"
                f"sign it, where it was trained: feedrank sign {uri} --key PRIVATE_KEY"
            )
        try:
            verifier.set_hashing_config(_hashing(folder)).verify(folder, signature)
        except InvalidSignature as error:
            raise _refused(uri, name, key, "the signature is none of this key") from error
        except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
            raise _refused(uri, name, key, _reason(error)) from error
        if uncovered := [
            p for p in _ignored(signature) if p != SIGNATURE and (folder / p).exists()
        ]:
            raise _refused(uri, name, key, f"the signature leaves out {', '.join(uncovered)}")


def _hashing(folder: Path) -> "Config":
    """Every file but the signature; links are refused."""
    from model_signing.hashing import Config

    config = Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    return config.set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)


def _ignored(signature: Path) -> list[str]:
    """The paths that a verified signature says it doesn't cover."""
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    paths: list[str] = statement["predicate"]["serialization"].get("ignore_paths", [])
    return paths


def _reason(error: Exception) -> str:
    """The library's, with each file that differs and without the digests, whose bytes it quotes."""
    text = " ".join(str(error).replace("\\", "").split())
    text = re.sub(rf": Expected .*?(?={_DIFFERENCES}|$)", " ", text)
    return re.sub(rf"\[['\"](?={_DIFFERENCES})", "", text).rstrip()


def _refused(uri: str, name: str, key: Path, reason: str) -> SigningError:
    return SigningError(
        f"{uri}: {name} is not what the owner of {key} signed: {reason[:400]}\n"
        f"where you know the change, sign it again: feedrank sign {uri} --key PRIVATE_KEY; "
        "otherwise train it anew: feedrank train"
    )
