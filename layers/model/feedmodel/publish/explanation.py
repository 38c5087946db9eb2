"""`feedrank spec --check`: a feature spec in words."""

from collections.abc import Iterator

from feedrank.features import expressions
from feedrank.features.spec import Feature, FeatureSpec, Input


def explain(spec: FeatureSpec) -> Iterator[str]:
    """The spec in words, a line each."""
    ids = "texts" if spec.ids == "text" else "whole numbers"
    yield f"Ids are {ids}. An unknown item {_unknown(spec)}."
    for input_ in spec.inputs:
        rows = "one row an item" if input_.per == "item" else "one row a request"
        yield f"Input {input_.name}: {input_.type}, {rows}, {input_.width} columns:"
        for feature in input_.features:
            yield f"  {feature.name}: {_explained(feature, input_)}"
    for name, vocabulary in spec.vocabularies.items():
        size = vocabulary if isinstance(vocabulary, int | str) else len(vocabulary)
        yield f"Vocabulary {name}: {size if isinstance(size, str) else f'{size:,} entries, from 1'}"
    if spec.outputs:
        order = "in the order in which the model gives them" if spec.has_order else "by name"
        yield f"Outputs, {order}: {', '.join(spec.outputs)}"
        yield f"Score: {spec.score or ' + '.join(f'{w:g} * {n}' for n, w in spec.outputs.items())}"
    yield "A score is any finite number." if spec.range is None else "A score is in [0, 1]."


def _unknown(spec: FeatureSpec) -> str:
    return {
        "default": "is ranked by the score of its defaults",
        "last": "stands behind all known ones",
        "drop": "is left out of the response",
    }[spec.unknown_items]


def _explained(feature: Feature, input_: Input) -> str:
    if feature.source == "context":
        where = _context(feature)
    elif feature.source == "candidate":
        where = f'the request\'s "features": {{"{feature.name}": [...]}}'
    else:
        where = f"{feature.source}s.{feature.column}"
    parts = [f"days since {where}" if feature.is_time else where]
    if feature.vocabulary:
        parts.append(f"numbered by the vocabulary {feature.vocabulary}, 0 where it isn't in it")
    if feature.size and (feature.vocabulary or feature.keep or input_.type == "int64"):
        parts.append(f"the last {feature.size} of a list, filled in front")
    elif feature.size:
        parts.append(f"exactly {feature.size} numbers")
    if feature.store == "float16":
        parts.append("rounded to float16")
    if not feature.vocabulary:
        missing = "NaN" if feature.default is None else f"{feature.default:g}"
        missing = "a list of defaults" if feature.defaults else missing
        parts.append(f"{missing} where it isn't known")
    return "; ".join(parts)


def _context(feature: Feature) -> str:
    key = expressions.parse(feature.expression).key
    return f"{feature.expression} of the request's {'context' if key else 'time'}"
