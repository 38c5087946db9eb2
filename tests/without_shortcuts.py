"""A pytest plugin: with `-p without_shortcuts`, as in `make plain`, every shortcut is off."""

import pytest

from feedrank import shortcuts

for name in [name for name in vars(shortcuts) if name.isupper()]:
    setattr(shortcuts, name, False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a shortcut itself have nothing to test here."""
    own = [item for item in items if item.get_closest_marker("shortcut")]
    config.hook.pytest_deselected(items=own)
    items[:] = [item for item in items if item not in own]
