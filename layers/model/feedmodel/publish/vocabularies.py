"""Vocabularies: read from files when a model is published, and kept where a request needs them."""

import json
from dataclasses import replace
from pathlib import Path

from feedmodel.errors import PublishError
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import Vocabulary, vocabulary_of


def read_spec(path: Path) -> FeatureSpec:
    """The spec in a JSON file, with the texts of its vocabularies. Raises PublishError or
    SpecError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise PublishError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PublishError(f"{path.name}: not JSON: {error}") from error
    return with_texts(parse_spec(data), path.parent)


def with_texts(spec: FeatureSpec, directory: Path) -> FeatureSpec:
    """The spec with the texts of each vocabulary. A file has one a line, UTF-8, and lies beside the
    spec. Raises PublishError."""
    read = {
        name: _lines(directory, texts, name) if isinstance(texts, str) else texts
        for name, texts in spec.vocabularies.items()
    }
    if sizes := [name for name, texts in read.items() if isinstance(texts, int)]:
        raise PublishError(
            f"feature spec: vocabularies.{sizes[0]} needs its texts, or a file's name"
        )
    return replace(spec, vocabularies=read)


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
        lines = (directory / file).read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise PublishError(f"feature spec: vocabularies.{name}: {file}: {error}") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if len({*texts}) < len(texts):
        raise PublishError(f"feature spec: vocabularies.{name}: {file} has a line twice")
    return texts
