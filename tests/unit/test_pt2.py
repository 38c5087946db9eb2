"""An archive of torch.export may hold a program and tensors, and nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import archives
from feedrank.errors import BundleError
from feedrank.model.engines import pt2_grammar
from feedrank.model.engines.torch import load_program

ATTACK = Path(__file__).parents[1] / "attack.py"
NO_ARITHMETIC = r"^there: must be arithmetic over sizes"
SYMBOL = "Symbol('s77', positive=True, integer=True)"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("archives")
    return {kind: archives.write(kind, directory / f"{kind}.pt2") for kind in archives.KINDS}


@pytest.mark.parametrize("kind", archives.KINDS)
def test_a_valid_archive_scores_as_torch_loads_it(written: dict[str, Path], kind: str) -> None:
    rows = torch.rand(10, archives.WIDTH, generator=torch.Generator().manual_seed(3))
    ours = load_program(written[kind]).module()(rows)
    torchs = torch.export.load(written[kind]).module()(rows)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "rows"), [("bounds", 3), ("bounds", 101), ("shapes", 3)])
def test_a_size_that_the_model_was_not_exported_for_is_still_refused(
    written: dict[str, Path], kind: str, rows: int
) -> None:
    module = load_program(written[kind]).module()
    with pytest.raises(AssertionError, match="Guard failed"):
        module(torch.ones(rows, archives.WIDTH))


def _attack(archive: Path, directory: Path, mode: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, str(ATTACK), str(archive), str(directory), mode],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2_000:]
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("kind", ["shapes", "branches", "convolution", "unbacked"])
def test_no_text_of_an_archive_runs(written: dict[str, Path], tmp_path: Path, kind: str) -> None:
    report = _attack(written[kind], tmp_path, "checked")
    assert (report["seen"], report["ran"]) == ([], False)
    assert report["outcomes"]["refused"] > 300
    handed_over = [place for place in report["passed"] if ".metadata." not in place]
    assert handed_over == [], "what is not refused is left out"


def test_such_a_text_runs_if_it_is_not_checked(written: dict[str, Path], tmp_path: Path) -> None:
    """So the test above would detect it."""
    report = _attack(written["shapes"], tmp_path, "unchecked")
    assert report["ran"]
    assert {line.split()[0] for line in report["seen"]} >= {"os.system", "open", "planted"}


def _changed(path: Path, record: str, place: tuple[str | int, ...], text: str) -> Any:
    records = archives.read(path)
    return archives.packed(records | {record: archives.replaced(records[record], place, text)})


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.ops.load_library",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.add.__call__",
        "torch.ops.profiler._record_function_enter.default",
        "torch.ops.higher_order.triton_kernel_wrapper_functional",
        "torch.ops.aten.add.Tensor.op",
        "_operator.attrgetter",
        "_operator.call",
        "math.__loader__.load_module",
        "builtins.eval",
        "#mine:op",
        "os.system",
        "",
    ],
)
def test_only_pytorchs_own_operators_are_looked_up(written: dict[str, Path], target: str) -> None:
    place = ("graph_module", "graph", "nodes", 0, "target")
    with pytest.raises(
        BundleError, match=r"models/model\.json: graph_module\.graph\.nodes\[0\]\.t"
    ):
        load_program(_changed(written["bounds"], archives.PROGRAM, place, target))


def test_an_operator_takes_no_file_name(written: dict[str, Path], tmp_path: Path) -> None:
    """`aten.from_file` creates the file that it maps."""
    records = archives.read(written["bounds"])
    program = json.loads(records[archives.PROGRAM])
    node = program["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.ops.aten.from_file.default"
    node["inputs"] = [
        {"name": "filename", "arg": {"as_string": str(tmp_path / "made")}, "kind": 1},
        {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
        {"name": "size", "arg": {"as_int": 4}, "kind": 1},
    ]
    records[archives.PROGRAM] = json.dumps(program).encode()
    with pytest.raises(BundleError, match="unknown key as_string"):
        load_program(archives.packed(records))


@pytest.mark.parametrize("record", [archives.WEIGHTS, archives.CONSTANTS])
def test_a_tensor_is_never_unpickled(written: dict[str, Path], record: str) -> None:
    records = archives.read(written["shapes" if "constants" in record else "lstm"])
    config = json.loads(records[record])
    next(iter(config["config"].values()))["use_pickle"] = True
    records[record] = json.dumps(config).encode()
    with pytest.raises(BundleError, match="use_pickle: must be false"):
        load_program(archives.packed(records))


def test_sample_inputs_are_not_read(written: dict[str, Path]) -> None:
    records = archives.read(written["bounds"]) | {archives.SAMPLES: b"cos\nsystem\n(S'false'\ntR."}
    assert load_program(archives.packed(records)).module()(torch.ones(4, archives.WIDTH))


@pytest.mark.parametrize(
    "name",
    [
        "extra/notes.txt",
        "data/aotinductor/model/model.so",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/weights/model.pt",
        "data/weights/../../x",
        "models/other.json",
        "version",
    ],
)
def test_a_record_that_no_program_needs_is_refused_by_name(
    written: dict[str, Path], name: str
) -> None:
    records = archives.read(written["bounds"]) | {name: b"1"}
    with pytest.raises(BundleError, match=f"holds '{name}', which no program needs"):
        load_program(archives.packed(records))


@pytest.mark.parametrize(
    "name", [archives.PROGRAM, archives.WEIGHTS, "archive_format", "byteorder"]
)
def test_a_record_that_is_missing_is_named(written: dict[str, Path], name: str) -> None:
    records = archives.read(written["bounds"])
    del records[name]
    with pytest.raises(BundleError, match=name):
        load_program(archives.packed(records))


def test_a_record_that_occurs_twice_is_refused(written: dict[str, Path]) -> None:
    archive = archives.packed(archives.read(written["bounds"]))
    with zipfile.ZipFile(archive, "a") as added, pytest.warns(UserWarning, match="Duplicate"):
        added.writestr(f"archive/{archives.PROGRAM}", b"{}")
    with pytest.raises(BundleError, match=r"holds 'models/model\.json'"):
        load_program(archive)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"graph_module": {}, "graph_module": {}}', "the key graph_module twice"),
        (b'{"graph_module": NaN}', "NaN is not a JSON number"),
        (b"[]", "must be an object"),
        (b"{}", "lacks"),
    ],
)
def test_a_file_that_is_not_a_program_is_refused_with_a_reason(
    written: dict[str, Path], raw: bytes, reason: str
) -> None:
    records = archives.read(written["bounds"]) | {archives.PROGRAM: raw}
    with pytest.raises(BundleError, match=rf"^serving/model\.pt2: models/model\.json.*{reason}"):
        load_program(archives.packed(records))


@pytest.mark.parametrize(
    "expression",
    [
        SYMBOL,
        f"Mul(Integer(4), Pow({SYMBOL}, Integer(2)))",
        f"FloorDiv({SYMBOL}, Integer(2))",
        f"Mul(Float('1.5', precision=53), ToFloat({SYMBOL}))",
        f"Max(Integer(1), Add(Integer(-1), {SYMBOL}))",
        "s0 + 2*u1 - 4",
        "2*s39",
        "s0**2 < 5",
    ],
)
def test_arithmetic_over_sizes_is_an_expression(expression: str) -> None:
    assert pt2_grammar.expression(expression, "there") == expression


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "s0.__class__",
        "[s0 for s0 in s1]",
        "(lambda: 1)()",
        "(s0 := 1)",
        "s0 if s1 else s2",
        "f'{s0}'",
        "'s0'",
        "Symbol('s0\\n')",
        "Symbol('os')",
        "Symbol('s0', positive=s1)",
        "Symbol('s0', positive=True, integer=s1)",
        "Symbol('s0', **s1)",
        "Add(*s0)",
        "Function('f')(s0)",
        "Lambda(s0, s0)",
        "S('s0')",
        "sympify('s0')",
        "os",
        "s0; s1",
        "s0\ns1",
        "9**9**9**9",
        "((9**64)**64)**64",
        "Pow(Integer(10), Integer(10000))",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Rational(1, 10000000)",
        "(" * 9_000,
        "-" * 9_000 + "1",
        "1" * 20_000,
        "",
        5,
        None,
    ],
)
def test_more_than_arithmetic_is_not_an_expression(expression: Any) -> None:
    with pytest.raises(BundleError, match=NO_ARITHMETIC):
        pt2_grammar.expression(expression, "there")


@pytest.mark.parametrize(
    "guard",
    [
        "L['x'].size()[0] > 4",
        "(L['flat_args'][0].size()[0] % 2) == 0",
        "2*L['x'].size()[0] < 4 + L['y'].size()[0]",
        "L['x'].size()[0]**2 < 64",
        "math.trunc(0.5*torch.sym_float(L['x'].size()[0])) == 4",
        "L['x'].stride()[1] == 1 and not L['x'].storage_offset() != 0",
    ],
)
def test_a_comparison_of_sizes_is_a_guard(guard: str) -> None:
    assert pt2_grammar.guard(guard, "there") == guard


@pytest.mark.parametrize(
    "guard",
    [
        "L['x'].__class__",
        "L['x'].size(__import__('os'))[0] > 4",
        "L['x'].backward() == 4",
        "K['x'].size()[0] > 4",
        "L[__import__('os')].size()[0] > 4",
        "L['x\"'].size()[0] > 4",
        "math.__loader__.load_module('os')",
        "max(L['x'].size()[0], key=print)",
        "torch.load(L['x'].size()[0])",
        "torch.ops.sym_float(L['x'].size()[0])",
        "True) or print(1",
        'True, "")\n  print(1',
    ],
)
def test_more_than_a_comparison_of_sizes_is_not_a_guard(guard: str) -> None:
    with pytest.raises(BundleError, match=NO_ARITHMETIC):
        pt2_grammar.guard(guard, "there")
