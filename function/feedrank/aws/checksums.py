"""Checksums that AWS sends with a body. A body that is damaged on its way is worth another try."""

from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from functools import cache
from zlib import crc32

MAX_CRC64_BYTES = 1 << 16  # in Python it takes 0.1 µs a byte
_CRC64_NVME = 0x9A6C_9329_AC4B_C9B5  # its polynomial, reflected
_ALL = (1 << 64) - 1


class BodyChecksum:
    """Of an object of S3: its CRC32, or its CRC64NVME if it is short. Others are not checked: who
    reads a bundle compares SHA-256 anyway."""

    def __init__(self, header: Callable[[str], str], length: int | None) -> None:
        """`header` finds a response's header."""
        whole = header("x-amz-checksum-type") != "COMPOSITE"  # else it is one of checksums
        self._crc32 = _number(header("x-amz-checksum-crc32"), 4) if whole else None
        is_short = length is not None and length <= MAX_CRC64_BYTES
        self._crc64 = _number(header("x-amz-checksum-crc64nvme"), 8) if whole and is_short else None
        self._of_32, self._of_64 = 0, 0

    def update(self, data: memoryview) -> None:
        if self._crc32 is not None:
            self._of_32 = crc32(data, self._of_32)
        elif self._crc64 is not None:
            self._of_64 = crc64_nvme(data, self._of_64)

    def is_right(self) -> bool:
        if self._crc32 is not None:
            return self._of_32 == self._crc32
        return self._crc64 is None or self._of_64 == self._crc64


def crc64_nvme(data: bytes | memoryview, value: int = 0) -> int:
    table, crc = _table(), value ^ _ALL
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _ALL


@cache
def _table() -> list[int]:
    table = []
    for number in range(256):
        crc = number
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC64_NVME if crc & 1 else 0)
        table.append(crc)
    return table


def _number(text: str, size: int) -> int | None:
    """None where it is none of this size: a checksum of parts ends in their number."""
    try:
        raw = b64decode(text, validate=True)
    except Error:
        return None
    return int.from_bytes(raw, "big") if len(raw) == size else None
