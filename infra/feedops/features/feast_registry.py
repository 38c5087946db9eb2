"""What a Feast repository says of its store and its views, as one line of JSON. A program for the
Python that has Feast's SDK: the function and `feedrank` have none.

    python feast_registry.py REPOSITORY
"""

import json
import sys
from typing import Any


def described(path: str) -> dict[str, Any]:
    import feast

    store = feast.FeatureStore(repo_path=path)
    config = store.config
    views = [*store.list_batch_feature_views(), *store.list_stream_feature_views()]
    return {
        "project": config.project,
        "online_store": config.online_store.type,
        "table_name_template": getattr(config.online_store, "table_name_template", ""),
        "entity_key_serialization_version": config.entity_key_serialization_version,
        "has_versions": bool(
            getattr(config.registry, "enable_online_feature_view_versioning", False)
        ),
        "views": {view.name: _view(view) for view in views if view.online},
    }


def _view(view: Any) -> dict[str, Any]:  # noqa: ANN401 Feast's
    return {
        "join_keys": {column.name: _type(column) for column in view.entity_columns},
        "ttl_s": view.ttl.total_seconds() if view.ttl else 0,
        "features": {feature.name: _type(feature) for feature in view.features},
    }


def _type(field: Any) -> str:  # noqa: ANN401 Feast's
    return str(field.dtype.to_value_type().name)


if __name__ == "__main__":
    print(json.dumps(described(sys.argv[1])))
