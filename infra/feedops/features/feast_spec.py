"""Maps a spec's features to a Feast repository's, and refuses what the function doesn't read."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from feedops.display import print_facts
from feedops.errors import OperationError
from feedrank.features.feast_views import SOURCES, TEMPLATE, VERSION
from feedrank.features.spec import Feature, FeatureSpec, Source
from feedrank.features.spec_reader import parse_spec

REGISTRY = Path(__file__).with_name("feast_registry.py")
KEY_TYPES = {"INT64": "int64", "INT32": "int32", "STRING": "string"}
WHOLE_NUMBERS = {"INT64", "INT32", "BOOL"}
NUMBERS = WHOLE_NUMBERS | {"DOUBLE", "FLOAT"}
TIMES = {"UNIX_TIMESTAMP", "DOUBLE", "INT64", "INT32"}
TIMEOUT_S = 300  # the SDK takes seconds to start; a registry may be far away


@dataclass(frozen=True, slots=True)
class SpecOptions:
    repository: Path
    spec: Path
    to: Path
    python: Path  # that has Feast's SDK
    references: Mapping[str, str]  # by feature: `view:feature`, where the name alone doesn't tell


def write_spec(options: SpecOptions, console: Console) -> None:
    """Raises OperationError, SpecError."""
    data = json.loads(options.spec.read_text())
    repository = described(options.repository, options.python)
    data["feast"] = feast_of(parse_spec(data), repository, options.references)
    parse_spec(data)  # refuses other versions of keys and names of tables
    options.to.write_text(json.dumps(data, indent=1) + "\n")
    uri, features = f"feast://{repository['project']}", data["feast"]["features"]
    print_facts(console, {"spec": str(options.to), "FEATURES_URI": uri, **features})


def described(repository: Path, python: Path) -> Any:  # noqa: ANN401 JSON
    """What `feast_registry.py` says. Raises OperationError."""
    command = [str(python), str(REGISTRY), str(repository)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or "no reason").splitlines()[-1]
        raise OperationError(f"{repository}: Feast's SDK, by {python}: {reason}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise OperationError(f"{repository}: Feast's SDK, by {python}: {error}") from error


def feast_of(spec: FeatureSpec, repository: Any, references: Mapping[str, str]) -> dict[str, Any]:  # noqa: ANN401 JSON
    """The spec's `feast`. A source without any feature in the repository is left to the snapshot.
    Raises OperationError."""
    if repository["online_store"] != "dynamodb":
        raise OperationError(f"online_store is {repository['online_store']}: it must be dynamodb")
    if repository["has_versions"]:
        raise OperationError("enable_online_feature_view_versioning is on: turn it off")
    known = _by_name(repository["views"])
    mapping: dict[str, str] = {}
    for source in SOURCES:
        mapping |= _references(spec, source, known, references)
    if not mapping:
        raise OperationError("no view has a feature of the spec: give --map feature=view:feature")
    views = dict.fromkeys(reference.partition(":")[0] for reference in mapping.values())
    feast = {
        "views": {name: _view(name, repository["views"][name]) for name in views},
        "features": mapping,
    }
    for key, usual in {
        "entity_key_serialization_version": VERSION,
        "table_name_template": TEMPLATE,
    }.items():
        if repository[key] != usual:
            feast[key] = repository[key]
    return feast


def _by_name(views: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By a feature's name the type of each `view:feature`."""
    known: dict[str, dict[str, str]] = defaultdict(dict)
    for view, entry in views.items():
        for name, type_ in entry["features"].items():
            known[name][f"{view}:{name}"] = type_
    return known


def _references(
    spec: FeatureSpec,
    source: Source,
    known: Mapping[str, Mapping[str, str]],
    references: Mapping[str, str],
) -> dict[str, str]:
    mapping, lacking = {}, []
    for feature in spec.columns(source):
        reference = references.get(feature.name)
        name = reference.partition(":")[2] if reference else feature.column
        choices = known.get(name, {})
        if reference and reference not in choices:
            raise OperationError(
                f"--map {feature.name}={reference}: the repository has no such one"
            )
        if not choices:
            lacking.append(feature.name)
            continue
        if not reference and len(choices) > 1:
            raise OperationError(
                f"{feature.name}: {' and '.join(choices)} have this name: say which by "
                f"--map {feature.name}=view:feature"
            )
        mapping[feature.name] = chosen = reference or next(iter(choices))
        _check_type(spec, feature, chosen, choices[chosen])
    if mapping and lacking:
        raise OperationError(
            f"no view has {lacking[0]!r}, and others of the {source}s are there: give "
            f"--map {lacking[0]}=view:feature"
        )
    return mapping


def _check_type(spec: FeatureSpec, feature: Feature, reference: str, type_: str) -> None:
    if feature.is_time:
        right = TIMES
    elif feature in spec.block(feature.source, "integers"):
        right = WHOLE_NUMBERS
    else:
        right = NUMBERS
    if type_ not in right:
        raise OperationError(
            f"{reference} is {type_}, and {feature.name!r} can be {', '.join(sorted(right))}: "
            "leave its source to the snapshot"
        )


def _view(name: str, view: Mapping[str, Any]) -> dict[str, Any]:
    keys = view["join_keys"]
    if len(keys) != 1:
        raise OperationError(f"{name} has the join keys {', '.join(keys) or '(none)'}: one is read")
    ((key, type_),) = keys.items()
    if type_ not in KEY_TYPES:
        raise OperationError(f"{name}: the join key {key} is {type_}, not {', '.join(KEY_TYPES)}")
    ttl = {"ttl_s": view["ttl_s"]} if view["ttl_s"] else {}
    return {"join_key": key, "join_key_type": KEY_TYPES[type_], **ttl}
