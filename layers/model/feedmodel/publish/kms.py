"""A signing key that stays in AWS KMS: only digests go there, and signatures come back.

The library has no signer for it, so this one is its signer of EC keys, with another private key.
https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
"""

from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from model_signing._signing.sign_ec_key import Signer, _check_supported_ec_key, get_ec_key_hash

from feedmodel.errors import SigningError
from feedmodel.publish.signing import KMS

FAILURES = (BotoCoreError, ClientError)


class KmsSigner(Signer):
    """Raises SigningError where KMS refuses, or has no EC key of that name to sign with."""

    def __init__(self, uri: str) -> None:
        key = KmsKey(uri)
        self._private_key = key  # type: ignore[assignment]  # it signs as one
        try:
            _check_supported_ec_key(key.public_key())
        except ValueError as error:
            raise SigningError(f"{uri}: {error}") from error


class KmsKey:
    """What the library's signer uses of a private key."""

    def __init__(self, uri: str) -> None:
        self._uri, self._id = uri, uri.removeprefix(KMS)
        arn = self._id.split(":")
        self._client = _told(
            uri, lambda: boto3.client("kms", region_name=(arn + [""] * 3)[3] or None)
        )
        der = _told(uri, lambda: self._client.get_public_key(KeyId=self._id))["PublicKey"]
        public_key = load_der_public_key(der)
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise SigningError(f"{uri}: is no EC key; create one with key spec ECC_NIST_P256")
        self._public_key = public_key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(self, content: bytes, _algorithm: ec.ECDSA) -> bytes:
        """DER, as EC keys of a file sign. KMS takes 4,096 bytes at most, so it gets the digest."""
        algorithm = get_ec_key_hash(self._public_key)
        hashed = hashes.Hash(algorithm)
        hashed.update(content)
        response = _told(
            self._uri,
            lambda: self._client.sign(
                KeyId=self._id,
                Message=hashed.finalize(),
                MessageType="DIGEST",
                SigningAlgorithm=f"ECDSA_SHA_{8 * algorithm.digest_size}",
            ),
        )
        signature: bytes = response["Signature"]
        return signature


def _told(uri: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 boto3 has no types
    try:
        return call()
    except FAILURES as error:
        raise SigningError(f"{uri}: {error}") from error
