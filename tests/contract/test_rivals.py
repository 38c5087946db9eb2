"""The benchmark's rivals run on the versions that the function's own layer has."""

import re
from pathlib import Path

LAYER = Path(__file__).parents[2] / "layers" / "runtime"
RIVALS = Path(__file__).parents[2] / "infra/feedbench/rivals/requirements.txt"


def _pins(path: Path) -> dict[str, str]:
    pinned = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pinned}


def test_the_rivals_have_the_layers_versions() -> None:
    asked = re.findall(r"^[\w-]+", (LAYER / "requirements.in").read_text(), re.MULTILINE)
    layer, rivals = _pins(LAYER / "requirements.txt"), _pins(RIVALS)
    assert {name: rivals[name] for name in asked} == {name: layer[name] for name in asked}
