"""Texts as numbers: ids of text by a hash, categories by their place in a vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from feedrank.domain import IntArray

KEY_BYTES = 8


def text_key(text: str) -> int:
    """63 bits of BLAKE2b of its UTF-8, so that it is an id like any other. Publishing refuses
    tables in which two ids share one; by chance that is one in 18 million for a million ids."""
    return int.from_bytes(blake2b(text.encode(), digest_size=KEY_BYTES).digest(), "little") >> 1


def text_keys(texts: Sequence[str]) -> IntArray:
    """(texts,) int64."""
    digests = b"".join([blake2b(t.encode(), digest_size=KEY_BYTES).digest() for t in texts])
    return (np.frombuffer(digests, "<u8") >> np.uint64(1)).astype(np.int64)


def keys_of(ids: Sequence[int] | Sequence[str]) -> IntArray:
    """(ids,) int64: what tables find them by."""
    if isinstance(ids[0], str):
        return text_keys(ids)  # type: ignore[arg-type]  # ids are all of one kind
    return np.array(ids, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`keys` are (texts,) `text_keys`, ascending; `indices` (texts,) the number of each, from 1."""

    keys: IntArray
    indices: IntArray

    def numbers(self, texts: Sequence[str]) -> IntArray:
        """(texts,) int64; 0 for what the vocabulary lacks."""
        keys = text_keys(texts)
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        at = self.keys.searchsorted(keys)
        numbers = self.indices.take(at, mode="clip").astype(np.int64)
        numbers[self.keys.take(at, mode="clip") != keys] = 0
        return numbers


NO_VOCABULARIES: Mapping[str, Vocabulary] = {}


def vocabulary_of(texts: Sequence[str]) -> Vocabulary:
    """Raises ValueError where two texts share a key."""
    keys = text_keys(texts)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        raise ValueError("two texts are the same, or share a 63-bit key")
    return Vocabulary(keys[order], (order + 1).astype(np.int32))
