"""A Feast repository's views, as `feast_registry.py` says them, mapped to a spec."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.errors import OperationError
from feedops.features.feast_spec import described, feast_of
from feedrank.errors import SpecError
from feedrank.features.spec_reader import parse_spec

SPEC = {
    "inputs": [
        {"name": "n", "type": "int64", "features": [{"name": "i_count", "source": "item"}]},
        {
            "name": "x",
            "features": [
                {"name": "u_ctr", "source": "user"},
                {"name": "ctr", "source": "item"},
                {"name": "age", "source": "item", "expression": "since(made)"},
                {"name": "p", "source": "pair"},
                {"name": "hour", "source": "context", "expression": "hour"},
            ],
        },
    ]
}


def _repository(**changes: Any) -> Any:
    repository: dict[str, Any] = {
        "project": "shop",
        "online_store": "dynamodb",
        "table_name_template": "{project}.{table_name}",
        "entity_key_serialization_version": 3,
        "has_versions": False,
        "views": {
            "users": {
                "join_keys": {"user_id": "STRING"},
                "ttl_s": 86_400.0,
                "features": {"u_ctr": "DOUBLE"},
            },
            "items": {
                "join_keys": {"sku": "INT32"},
                "ttl_s": 0,
                "features": {
                    "ctr": "FLOAT",
                    "made": "UNIX_TIMESTAMP",
                    "i_count": "INT64",
                    "tags": "STRING_LIST",
                    "embedding": "FLOAT_LIST",
                },
            },
            "more": {"join_keys": {"sku": "INT32"}, "ttl_s": 0, "features": {"ctr": "FLOAT"}},
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = repository
        for parent in parents:
            place = place[parent]
        place[last] = value
    return repository


def _feast(references: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    references = {"ctr": "items:ctr"} if references is None else references
    return feast_of(parse_spec(SPEC), _repository(**changes), references)


def test_features_are_found_by_their_names_and_by_columns() -> None:
    feast = _feast()
    assert feast == {
        "views": {
            "users": {"join_key": "user_id", "join_key_type": "string", "ttl_s": 86_400.0},
            "items": {"join_key": "sku", "join_key_type": "int32"},
        },
        "features": {
            "u_ctr": "users:u_ctr",
            "i_count": "items:i_count",
            "ctr": "items:ctr",
            "age": "items:made",
        },
    }
    spec = SPEC | {"feast": feast}
    assert parse_spec(spec).to_json()["feast"] == feast


def test_a_source_that_feast_does_not_have_is_the_snapshots() -> None:
    feast = _feast({}, views__items__features={}, views__more__features={})
    assert feast["features"] == {"u_ctr": "users:u_ctr"}
    assert [*feast["views"]] == ["users"]


@pytest.mark.parametrize(
    ("references", "changes", "message"),
    [
        (None, {"online_store": "redis"}, "online_store is redis"),
        (None, {"has_versions": True}, "enable_online_feature_view_versioning is on"),
        ({}, {}, "ctr: items:ctr and more:ctr have this name"),
        ({"ctr": "items:clicks"}, {}, "--map ctr=items:clicks: the repository has no such one"),
        ({"ctr": "items:embedding"}, {}, "items:embedding is FLOAT_LIST, and 'ctr' can be BOOL"),
        ({"ctr": "items:tags"}, {}, "items:tags is STRING_LIST"),
        ({"ctr": "items:made"}, {}, "items:made is UNIX_TIMESTAMP"),
        (None, {"views__items__features__i_count": "DOUBLE"}, "items:i_count is DOUBLE"),
        (None, {"views__items__features__made": "STRING"}, "items:made is STRING"),
        (None, {"views__items__join_keys": {"a": "INT64", "b": "INT64"}}, "join keys a, b: one"),
        (None, {"views__items__join_keys": {}}, "join keys (none): one"),
        (None, {"views__items__join_keys": {"a": "BYTES"}}, "the join key a is BYTES"),
        (
            None,
            {"views__items__features": {"ctr": "FLOAT", "i_count": "INT64"}},
            "no view has 'age', and others of the items are there: give --map age=view:feature",
        ),
        ({}, {"views": {}}, "no view has a feature of the spec"),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(
    references: dict[str, str] | None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperationError) as refused:
        _feast(references, **changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entity_key_serialization_version": 2}, "entity_key_serialization_version is 2"),
        ({"table_name_template": "{table_name}"}, "table_name_template is '{table_name}'"),
    ],
)
def test_another_layout_of_tables_is_refused_where_the_spec_is_read(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(SPEC | {"feast": _feast(**change)})
    assert message in str(refused.value)


def _command(directory: Path, sdk: str, *more: str) -> Any:
    """With a Python of which `feast_registry.py` gets what `sdk` prints."""
    python = directory / "python"
    python.write_text(f"#!{sys.executable}\n{sdk}\n")
    python.chmod(0o755)
    (directory / "spec.json").write_text(json.dumps(SPEC))
    arguments = ["--from", str(directory), "--spec", str(directory / "spec.json")]
    arguments += ["--to", str(directory / "mapped.json"), "--python", str(python)]
    return CliRunner().invoke(app, ["features", "feast-spec", *arguments, *more])


def test_the_command_writes_the_spec_and_says_what_is_mapped(tmp_path: Path) -> None:
    sdk = f"print('a warning')\nprint({json.dumps(json.dumps(_repository()))})"
    result = _command(tmp_path, sdk, "--map", "ctr=more:ctr")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["FEATURES_URI", "feast://shop"] in lines
    assert ["ctr", "more:ctr"] in lines
    assert json.loads((tmp_path / "mapped.json").read_text()) == SPEC | {
        "feast": _feast({"ctr": "more:ctr"})
    }


@pytest.mark.parametrize(
    ("sdk", "message"),
    [
        ("raise SystemExit('no such registry')", "no such registry"),
        ("raise SystemExit(1)", "no reason"),
        ("print('nothing')", "Expecting value"),
        ("", "out of range"),
    ],
)
def test_a_repository_that_the_sdk_can_not_read_is_named(
    sdk: str, message: str, tmp_path: Path
) -> None:
    result = _command(tmp_path, sdk)
    assert (result.exit_code, message in result.output.replace("\n", " ")) == (1, True)
    assert not (tmp_path / "mapped.json").exists()


def test_a_python_without_the_sdk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="No module named 'feast'"):
        described(tmp_path, Path(sys.executable))
    with pytest.raises(OperationError, match="No such file"):
        described(tmp_path, tmp_path / "python")
