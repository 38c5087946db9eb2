"""Loads the canary's module, which is a separate Lambda function and not part of a package."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

CANARY = Path(__file__).parents[2] / "infra" / "canary" / "canary.py"


def load_canary() -> ModuleType:
    spec = spec_from_file_location("canary", CANARY)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
