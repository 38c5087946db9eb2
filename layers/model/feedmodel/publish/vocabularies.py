"""Vocabularies: read from files when a model is published, and kept where a request needs them."""

import json
from dataclasses import replace
from pathlib import Path

from feedmodel.errors import PublishError
from feedrank.bundle.documents import without_duplicates
from feedrank.features.expressions import listed
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import Vocabulary, vocabulary_of


def read_spec(path: Path) -> FeatureSpec:
    """The spec in a JSON file, with the texts of its vocabularies. Raises PublishError or
    SpecError."""
    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=without_duplicates)
    except OSError as error:
        raise PublishError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PublishError(f"{path.name}: not JSON: {error}") from error
    return with_texts(parse_spec(data), path.parent)


def with_texts(spec: FeatureSpec, directory: Path) -> FeatureSpec:
    """The spec with the texts of each vocabulary. A file has one a line, UTF-8, spaces included,
    and lies beside the spec. Raises PublishError."""
    read = {
        name: _lines(directory, texts, name) if isinstance(texts, str) else texts
        for name, texts in spec.vocabularies.items()
    }
    if sizes := [name for name, texts in read.items() if isinstance(texts, int)]:
        raise PublishError(
            f"feature spec: vocabularies.{sizes[0]} needs its texts, or a file's name"
        )
    spec = replace(spec, vocabularies=read)
    _check_lists_of_context(spec)
    return spec


def _check_lists_of_context(spec: FeatureSpec) -> None:
    """Raises PublishError for a text that no list of a request can have."""
    for feature in spec.columns("context"):
        texts = spec.vocabularies.get(feature.vocabulary, ())
        if feature.expression.startswith("list(") and isinstance(texts, tuple):
            for text in texts:
                if listed(text) != [text]:
                    raise PublishError(
                        f"feature spec: vocabularies.{feature.vocabulary} has {text!r}, which "
                        f"{feature.expression} can't read: commas divide its texts, and spaces "
                        "around one are left out"
                    )


def without_texts(spec: FeatureSpec) -> FeatureSpec:
    """As a bundle's manifest has it: the size of each."""
    sizes = {
        name: len(texts) for name, texts in spec.vocabularies.items() if isinstance(texts, tuple)
    }
    return replace(spec, vocabularies=sizes)


def request_vocabularies(spec: FeatureSpec) -> dict[str, Vocabulary]:
    """Those that serving looks texts up in. Raises PublishError where two texts share a key."""
    vocabularies = {}
    for name in spec.request_vocabularies():
        texts = spec.vocabularies[name]
        if not isinstance(texts, tuple):
            raise PublishError(f"feature spec: vocabularies.{name} needs its texts")
        try:
            vocabularies[name] = vocabulary_of(texts)
        except ValueError as error:
            raise PublishError(f"feature spec: vocabularies.{name}: {error}") from error
    return vocabularies


def _lines(directory: Path, file: str, name: str) -> tuple[str, ...]:
    if Path(file).name != file:
        raise PublishError(f"feature spec: vocabularies.{name}: a file lies beside the spec")
    try:
        lines = (directory / file).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise PublishError(f"feature spec: vocabularies.{name}: {file}: {error}") from error
    texts = tuple(line.removesuffix("\r") for line in lines)
    if texts[-1] == "":
        texts = texts[:-1]  # the last line ends, too
    if "" in texts:
        raise PublishError(
            f"feature spec: vocabularies.{name}: {file}: line {texts.index('') + 1} is empty, and "
            "an empty cell is never in a vocabulary; without it the numbers behind it are others"
        )
    if len({*texts}) < len(texts):
        raise PublishError(f"feature spec: vocabularies.{name}: {file} has a line twice")
    return texts
