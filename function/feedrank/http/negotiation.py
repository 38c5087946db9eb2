"""Which of several media types a response has: RFC 9110, section 12.5.1."""

from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 2_048  # characters; a scraper's have 400


class MediaRange(NamedTuple):
    type: str  # `text`, or `*`
    subtype: str
    version: str  # "" for any
    quality: float

    @property
    def precision(self) -> int:
        return (self.type != "*") + (self.subtype != "*") + bool(self.version)

    def covers(self, offer: "MediaRange") -> bool:
        return (
            self.type in {"*", offer.type}
            and self.subtype in {"*", offer.subtype}
            and self.version in {"", offer.version}
        )


def preferred(accept: str, offers: Sequence[str]) -> str:
    """The offer that a request with this `Accept` likes best: the first of equals, and the first of
    all where it names none. `version` is the one parameter by which offers differ."""
    ranges = [parsed(part) for part in accept[:LONGEST].split(",") if part.strip()]
    return max(offers, key=lambda offer: _quality(parsed(offer), ranges))


def parsed(text: str) -> MediaRange:
    name, *parameters = (part.strip() for part in text.lower().split(";"))
    values = dict(parameter.partition("=")[::2] for parameter in parameters)
    kind, _, subtype = name.partition("/")
    version = values.get("version", "").strip('"')
    return MediaRange(kind, subtype, version, _number(values.get("q", "1")))


def _quality(offer: MediaRange, ranges: Sequence[MediaRange]) -> float:
    """That of the most precise range which covers it; 0 without one."""
    covering = [each for each in ranges if each.covers(offer)]
    return max(covering, key=lambda each: each.precision).quality if covering else 0.0


def _number(text: str) -> float:
    """0 for what is none, since nobody can tell what was meant."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 <= number <= 1 else 0.0
