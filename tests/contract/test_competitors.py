"""The benchmark's competitors run on the versions that the function's own layer has."""

import re
from pathlib import Path

LAYER = Path(__file__).parents[2] / "layers" / "runtime"
COMPETITORS = Path(__file__).parents[2] / "infra/feedbench/competitors/requirements.txt"


def _pins(path: Path) -> dict[str, str]:
    pinned = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pinned}


def test_the_competitors_have_the_layers_versions() -> None:
    names = re.findall(r"^[\w-]+", (LAYER / "requirements.in").read_text(), re.MULTILINE)
    layer, competitors = _pins(LAYER / "requirements.txt"), _pins(COMPETITORS)
    assert {name: competitors[name] for name in names} == {name: layer[name] for name in names}
