"""A vocabulary has each of its texts once."""

import pytest

from feedrank.features.vocabulary import vocabulary_of


def test_a_text_that_is_there_twice_is_refused() -> None:
    vocabulary_of(["news", "sport", "art"])
    with pytest.raises(ValueError, match="the same"):
        vocabulary_of(["news", "sport", "news"])
