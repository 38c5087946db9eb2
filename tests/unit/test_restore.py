"""What a container does once Lambda has restored it from its snapshot."""

import asyncio
import ssl

import pytest

import fakes


def test_each_restore_mixes_random_bytes_of_its_own_into_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fork can't show it: OpenSSL sees one by its process id, which a restore keeps."""
    seeds: list[tuple[bytes, float]] = []
    monkeypatch.setattr(ssl, "RAND_add", lambda data, entropy: seeds.append((data, entropy)))
    with fakes.container(MODEL_URI="/nowhere") as handler:
        for _ in range(2):
            fakes.restore(handler)
        asyncio.get_event_loop().close()
    assert [len(data) for data, _ in seeds] == [32, 32]  # bytes: the strength of TLS's own keys
    assert seeds[0] != seeds[1]
