"""Applies Feast repositories, materialises them and says what the SDK answers, as JSON. Runs in
`.venv-feast`, where the SDK is:

    .venv-feast/bin/python tests/feast_store/sdk.py < asked.json

Standard input has `{"repositories": [directory, ...], "requests": [{"features": ["view:feature",
...], "join_key": "user_id", "ids": [...]}, ...]}`. The last line of standard output has the SDK's
version and, for each repository and request, the values by feature and the keys under which the
store has the ids' rows.
"""

import json
import math
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import feast
from feast.infra.online_stores.helpers import compute_entity_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total
from feast.type_map import python_values_to_proto_values

PERIOD = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def main() -> None:
    asked = json.load(sys.stdin)
    answers = [of_repository(Path(each), asked["requests"]) for each in asked["repositories"]]
    print(json.dumps({"feast": feast.__version__, "answers": answers}))


def of_repository(path: Path, requests: list[Any]) -> list[Any]:
    os.chdir(path)
    sys.path.insert(0, str(path))  # as the command does
    sys.modules.pop("features", None)  # of another repository
    apply_total(
        load_repo_config(path, path / "feature_store.yaml"), path, skip_source_validation=True
    )
    store = feast.FeatureStore(repo_path=str(path))
    store.materialize(*PERIOD)
    types = {entity.join_key: entity.value_type for entity in store.list_entities()}
    return [answer(store, types, **request) for request in requests]


def answer(
    store: feast.FeatureStore, types: Any, features: list[str], join_key: str, ids: list[Any]
) -> Any:
    values = store.get_online_features(
        features=features, entity_rows=[{join_key: id_} for id_ in ids], full_feature_names=True
    ).to_dict()
    keys = [
        compute_entity_id(EntityKey(join_keys=[join_key], entity_values=[value]), 3)
        for value in python_values_to_proto_values(ids, types[join_key])
    ]
    told = {name: [plain(v) for v in values[name.replace(":", "__")]] for name in features}
    return {"keys": keys, "values": told}


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


main()
