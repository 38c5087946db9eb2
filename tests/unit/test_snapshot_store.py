import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from feedrank.domain import MAX_ID, Query
from feedrank.errors import BundleError
from feedrank.features import snapshot
from feedrank.features.snapshot import SnapshotStore, read_safetensors
from feedrank.features.spec_reader import parse_spec

SPEC = parse_spec(
    {
        "inputs": [
            {
                "name": "x",
                "features": [
                    {"name": "u1", "source": "user", "default": -1},
                    {"name": "i1", "source": "item", "default": -2},
                    {"name": "i2", "source": "item", "default": -3},
                    {"name": "p1", "source": "pair", "default": -4},
                ],
            }
        ]
    }
)
USER_DEFAULTS, ITEM_DEFAULTS, PAIR_DEFAULTS = [-1.0], [-2.0, -3.0], [-4.0]

Users = dict[int, float]
Items = dict[int, tuple[float, float]]
Pairs = dict[tuple[int, int], float]


Tables = tuple[Users, Items, Pairs]


def _tensors(users: Users, items: Items, pairs: Pairs) -> dict[str, Any]:
    users, items = dict(sorted(users.items())), dict(sorted(items.items()))
    pairs = dict(sorted(pairs.items()))
    pair_users = [user for user, _ in pairs]
    known = sorted(set(pair_users))
    return {
        "users.ids": np.array(list(users), np.int64),
        "users.values": np.array(list(users.values()), np.float32).reshape(-1, 1),
        "items.ids": np.array(list(items), np.int64),
        "items.values": np.array(list(items.values()), np.float32).reshape(-1, 2),
        "pairs.users": np.array(known, np.int64),
        "pairs.starts": np.array([*map(pair_users.index, known), len(pairs)], np.int64),
        "pairs.items": np.array([item for _, item in pairs], np.int64),
        "pairs.values": np.array(list(pairs.values()), np.float32).reshape(-1, 1),
    }


def _store(directory: Path, users: Users, items: Items, pairs: Pairs) -> SnapshotStore:
    path = directory / "features.safetensors"
    path.write_bytes(save(_tensors(users, items, pairs)))
    return SnapshotStore(path, SPEC)


def _look_up(store: SnapshotStore, user: int, items: list[int]) -> dict[str, Any]:
    rows = store.look_up(Query(user, items, {}, 0.0))
    return {
        "user": rows.user.tolist(),
        "items": rows.items.tolist(),
        "pairs": rows.pairs.tolist(),
        "unknown_user": rows.unknown_user,
        "unknown_items": rows.unknown_items.tolist(),
        "degraded": rows.degraded,
    }


def _naive(tables: Tables, user: int, item_ids: list[int]) -> dict[str, Any]:
    users, items, pairs = tables
    return {
        "user": [users[user]] if user in users else USER_DEFAULTS,
        "items": [list(items.get(item, ITEM_DEFAULTS)) for item in item_ids],
        "pairs": [
            [pairs[user, item]] if (user, item) in pairs else PAIR_DEFAULTS for item in item_ids
        ],
        "unknown_user": user not in users,
        "unknown_items": [item not in items for item in item_ids],
        "degraded": (),
    }


# Few ids, so that they meet, and both ends of what an id can be.
_ids = st.sampled_from([0, 1, 2, 3, 5, 8, MAX_ID - 1, MAX_ID])
_values = st.floats(-100, 100, width=32)


@given(
    st.tuples(
        st.dictionaries(_ids, _values),
        st.dictionaries(_ids, st.tuples(_values, _values)),
        st.dictionaries(st.tuples(_ids, _ids), _values),
    ),
    _ids,
    st.lists(_ids, min_size=1, max_size=20),
)
def test_a_look_up_equals_that_of_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables, user: int, item_ids: list[int]
) -> None:
    store = _store(tmp_path_factory.getbasetemp(), *tables)
    assert _look_up(store, user, item_ids) == _naive(tables, user, item_ids)


@pytest.mark.parametrize("user", [0, 1, MAX_ID])
def test_empty_tables_give_the_defaults(tmp_path: Path, user: int) -> None:
    assert _look_up(_store(tmp_path, {}, {}, {}), user, [0, MAX_ID]) == {
        "user": [-1.0],
        "items": [[-2.0, -3.0]] * 2,
        "pairs": [[-4.0]] * 2,
        "unknown_user": True,
        "unknown_items": [True, True],
        "degraded": (),
    }


@pytest.mark.parametrize("count", [16, 17, 31, 32, 33, 100, 1_000])
def test_a_large_table_is_looked_up_as_a_dictionary_is(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_ROWS", 16)
    random = np.random.default_rng(count)
    ids = {0, MAX_ID, *random.integers(0, 3 * count, 2 * count).tolist()}
    for ends in (ids, ids - {0}, ids - {MAX_ID}):
        known = random.permutation(sorted(ends))[:count].tolist()
        items: Items = {item: (float(n), -float(n)) for n, item in enumerate(known)}
        tables: Tables = ({1: 2.0}, items, {(1, known[0]): 5.0})
        near = {max(0, item - 1) for item in known} | {min(MAX_ID, item + 1) for item in known}
        wanted = random.permutation([*known, *near, 0, MAX_ID]).tolist()
        assert _look_up(_store(tmp_path, *tables), 1, wanted) == _naive(tables, 1, wanted)


def test_the_same_item_twice_is_looked_up_and_counted_twice(tmp_path: Path) -> None:
    store = _store(tmp_path, {1: 0.5}, {7: (1, 2)}, {(1, 7): 3})
    assert _look_up(store, 1, [7, 9, 7, 9]) == {
        "user": [0.5],
        "items": [[1, 2], [-2, -3], [1, 2], [-2, -3]],
        "pairs": [[3], [-4], [3], [-4]],
        "unknown_user": False,
        "unknown_items": [False, True, False, True],
        "degraded": (),
    }


def test_a_user_gets_no_pairs_of_another_user(tmp_path: Path) -> None:
    store = _store(tmp_path, {}, {}, {(1, 7): 10, (2, 7): 20, (2, 8): 21, (3, 7): 30})
    pairs = {user: _look_up(store, user, [7, 8])["pairs"] for user in (0, 1, 2, 3, 4)}
    assert pairs == {
        0: [[-4], [-4]],
        1: [[10], [-4]],
        2: [[20], [21]],
        3: [[30], [-4]],
        4: [[-4], [-4]],
    }


def test_a_look_up_leaves_the_tables_as_they_are(tmp_path: Path) -> None:
    store = _store(tmp_path, {1: 0.5}, {7: (1, 2)}, {(1, 7): 3})
    first = _look_up(store, 1, [9, 7])
    assert _look_up(store, 2, [9, 9]) != first
    assert _look_up(store, 1, [9, 7]) == first


def test_a_source_that_the_spec_does_not_read_is_never_unknown(tmp_path: Path) -> None:
    spec = parse_spec(
        {
            "inputs": [
                {
                    "name": "x",
                    "features": [{"name": "h", "source": "context", "expression": "hour"}],
                }
            ]
        }
    )
    tensors = _tensors({}, {}, {}) | {
        name: np.empty((0, 0), np.float32)
        for name in ("users.values", "items.values", "pairs.values")
    }
    path = tmp_path / "features.safetensors"
    path.write_bytes(save(tensors))
    rows = SnapshotStore(path, spec).look_up(Query(5, [6, 7], {}, 0.0))
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (False, [False, False])
    assert (rows.user.shape, rows.items.shape, rows.pairs.shape) == ((0,), (2, 0), (2, 0))


def test_the_arrays_are_views_of_the_one_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    path.write_bytes(save(_tensors({1: 0.5}, {7: (1, 2)}, {(1, 7): 3})))
    arrays = read_safetensors(path)
    owners = [_owner(array) for array in arrays.values()]
    assert isinstance(owners[0], mmap.mmap)
    assert all(owner is owners[0] for owner in owners)
    assert not any(array.flags.writeable or array.flags.owndata for array in arrays.values())


def _owner(array: Any) -> Any:
    """The mapping that an array's memory belongs to."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def test_the_store_holds_no_copy_of_the_tables(tmp_path: Path) -> None:
    store = _store(tmp_path, {1: 0.5}, {7: (1, 2)}, {(1, 7): 3})
    arrays = (
        store._users.ids,
        *(t.values.rows for t in (store._users, store._items, store._pairs)),
    )
    assert all(isinstance(_owner(array), mmap.mmap) for array in arrays)


@pytest.mark.parametrize(
    "name",
    ["users.ids", "users.values", "items.ids", "items.values", "pairs.users", "pairs.starts",
     "pairs.items", "pairs.values"],
)  # fmt: skip
def test_a_missing_array_is_named(tmp_path: Path, name: str) -> None:
    tensors = _tensors({1: 0.5}, {7: (1, 2)}, {(1, 7): 3})
    del tensors[name]
    path = tmp_path / "features.safetensors"
    path.write_bytes(save(tensors))
    with pytest.raises(BundleError, match=f"serving/features.safetensors: lacks the array '{name}"):
        SnapshotStore(path, SPEC)


@pytest.mark.parametrize("name", ["users", "items", "pairs"])
def test_a_table_of_another_width_or_height_is_refused(tmp_path: Path, name: str) -> None:
    tensors = _tensors({1: 0.5}, {7: (1, 2)}, {(1, 7): 3})
    for shape in ((1, 4), (2, tensors[f"{name}.values"].shape[1])):
        path = tmp_path / "features.safetensors"
        path.write_bytes(save(tensors | {f"{name}.values": np.zeros(shape, np.float32)}))
        with pytest.raises(BundleError, match=rf"{name}\.values is \({shape[0]}, {shape[1]}\)"):
            SnapshotStore(path, SPEC)


@pytest.mark.parametrize(
    "starts", [[], [0], [0, 1], [0, 2], [0, 1, 3], [1, 1, 2], [0, 1, 1, 2], [[0, 1, 2]]]
)
def test_pairs_that_are_not_divided_by_user_are_refused(tmp_path: Path, starts: list[Any]) -> None:
    tensors = _tensors({}, {}, {(1, 7): 3, (2, 7): 4})
    path = tmp_path / "features.safetensors"
    path.write_bytes(save(tensors | {"pairs.starts": np.array(starts, np.int64)}))
    with pytest.raises(BundleError, match=r"pairs\.starts does not divide 2 pairs"):
        SnapshotStore(path, SPEC)


def _file(header: object, data: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


_ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xff" * 64,
        (5).to_bytes(8, "little") + b"{",
        (2**62).to_bytes(8, "little") + b"[]",
        _file([]),
        _file("text"),
        _file({"a": 5}),
        _file({"a": _ENTRY | {"dtype": "F64"}}, b"\0" * 8),
        _file({"a": _ENTRY | {"shape": "2"}}, b"\0" * 8),
        _file({"a": _ENTRY | {"shape": [3]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"data_offsets": []}}, b"\0" * 8),
        _file({"a": _ENTRY | {"more": 1}}, b"\0" * 8),
        _file({"a": _ENTRY | {"shape": [-2]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"shape": [2.0]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"shape": [True, 2]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"data_offsets": [-8, 0]}}, b"\0" * 8),
        _file({"a": _ENTRY | {"data_offsets": [0, 4]}}, b"\0" * 8),
        _file({"__metadata__": {"a": 1}}),
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (17).to_bytes(8, "little") + b'{"a": 1, "a": 2}' + b" ",
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"^serving/features\.safetensors: "):
        read_safetensors(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"serving/features.safetensors: not a feature snapshot"):
        read_safetensors(tmp_path / "nothing")
