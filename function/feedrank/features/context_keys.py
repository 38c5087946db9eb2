"""Which context keys a bundle reads, and which values each of them takes.

A misspelt key or value would still rank, by a row unlike any training row, and go unnoticed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from feedrank.features import expressions as context
from feedrank.features.spec import FeatureSpec
from feedrank.features.vocabulary import NO_VOCABULARIES, Vocabulary

TIMESTAMP = "timestamp"
SHOWN = 10  # of a long list of values, in an error
UNKNOWN = "\ufffd"  # Unicode's replacement character
LONGEST_READ = 40  # characters of a number or a time; more can hold anything, in its last digits


class ContextKeys:
    """`values` are the texts that a key may hold; `numbers` hold a number, whichever it is; `texts`
    any text, or a list, of which the model reads those that its vocabulary has."""

    def __init__(
        self, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary] = NO_VOCABULARIES
    ) -> None:
        values: dict[str, tuple[str, ...]] = {}
        numbers: dict[str, None] = {}
        self._free: dict[str, _FreeText] = {}
        for feature in spec.columns("context"):
            parsed = context.parse(feature.expression)
            if parsed.example is None:
                continue
            key, text = parsed.example
            if parsed.reads != "number":
                vocabulary = vocabularies.get(feature.vocabulary)
                self._free[key] = _FreeText(vocabulary, feature.size)
            elif parsed.is_number:
                numbers[key] = None
            else:
                values[key] = (*values.get(key, ()), text)
        for key, more in spec.context_values.items():
            values[key] = (*values.get(key, ()), *more)
        numbers = {key: None for key in numbers if key not in self._free}
        self.numbers = tuple(numbers)
        self.values = {
            key: tuple(dict.fromkeys(texts))
            for key, texts in values.items()
            if key not in numbers and key not in self._free
        }
        self.texts = tuple(self._free)
        self.known = (*self.values, *self.numbers, *self.texts, TIMESTAMP)
        self._known = frozenset(self.known)
        self._texts = {key: frozenset(texts) for key, texts in self.values.items()}

    def problems(self, sent: Mapping[str, str]) -> list[str]:
        """What this context has that the bundle doesn't read; each names what is known, and repeats
        nothing of what was sent."""
        problems = []
        if not sent.keys() <= self._known:
            problems.append(f"context: unknown key; this model reads {_some(self.known)}")
        problems += [
            f"context.{key}: must be one of {_some(self.values[key])}"
            for key, texts in self._texts.items()
            if key in sent and sent[key] not in texts
        ]
        return problems

    def recorded(self, sent: Mapping[str, str]) -> tuple[dict[str, str | None], int]:
        """What a record may hold of it, and the number of entries that it doesn't hold as sent: an
        unknown key is left out, an unknown value is None, which every feature reads like the value,
        and in a list UNKNOWN stands for each unknown text, so that the others keep their places. So
        the record has no text that the bundle doesn't list."""
        record: dict[str, str | None] = {}
        dropped = 0
        for key, text in sent.items():
            if key not in self._known:
                dropped += 1
            elif free := self._free.get(key):
                record[key] = free.known(text)
                dropped += record[key] != free.read(text)
            else:
                record[key] = text if self._is_bounded(key, text) else None
                dropped += record[key] is None
        return record, dropped

    def _is_bounded(self, key: str, text: str) -> bool:
        texts = self._texts.get(key)
        return len(text) <= LONGEST_READ if texts is None else text in texts

    def described(self) -> dict[str, Any]:
        """By key, for the model card."""
        texts = {key: {"type": "text", "values": list(v)} for key, v in self.values.items()}
        return (
            texts
            | {key: {"type": "number"} for key in self.numbers}
            | {key: {"type": free.type} for key, free in self._free.items()}
            | {TIMESTAMP: {"type": "time"}}
        )

    def schema(self) -> dict[str, Any]:
        """JSON Schema of each key; values are always texts."""
        texts = {key: {"type": "string", "enum": list(v)} for key, v in self.values.items()}
        number = {"type": "string", "description": "A finite number", "examples": ["1.5"]}
        time = {"type": "string", "description": "ISO 8601, UTC where it has no offset"}
        free = {key: text.schema() for key, text in self._free.items()}
        return texts | dict.fromkeys(self.numbers, number) | free | {TIMESTAMP: time}


class _FreeText(NamedTuple):
    """A key whose texts a vocabulary numbers."""

    vocabulary: Vocabulary | None
    size: int  # 0: one text, else the length of the list

    @property
    def type(self) -> str:
        return "list" if self.size else "text"

    def read(self, text: str) -> str:
        """What the model reads of it: the last ones of a list, without the space between them."""
        return ",".join(self._texts(text))

    def known(self, text: str) -> str | None:
        """What of it the vocabulary has: nothing else may be in a record."""
        texts = self._texts(text)
        if self.vocabulary is None or not texts:
            return None if texts else ""
        numbers = self.vocabulary.numbers(texts)
        if not numbers.any():
            return None
        return ",".join(t if n else UNKNOWN for t, n in zip(texts, numbers.tolist(), strict=True))

    def _texts(self, text: str) -> list[str]:
        return context.listed(text)[-self.size :] if self.size else [text]

    def schema(self) -> dict[str, Any]:
        what = f"Texts, divided by commas; the last {self.size} count" if self.size else "A text"
        return {"type": "string", "description": what}


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more:,} more, see /model" if more > 0 else "")
