"""Whether a build is what a stack runs. `sam deploy` names each upload by the digest of its
directory, and the deployed template has these names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feedops.errors import OperationError
from feedops.release.account import Account
from feedops.stack.template import parse

PARTS: Mapping[str, str] = {
    "Function": "CodeUri",
    "RuntimeLayer": "ContentUri",
    "ModelLayer": "ContentUri",
}


def changed_parts(account: Account, stack: str, build: Path) -> list[str]:
    """The parts of the stack that a deploy of the build in `build` would replace. Raises
    OperationError where the function is an image."""
    body = account.cloudformation.get_template(StackName=stack, TemplateStage="Original")[
        "TemplateBody"
    ]
    deployed = parse(body) if isinstance(body, str) else body  # botocore has decoded JSON
    resources = deployed["Resources"]
    if any(key not in resources.get(part, {}).get("Properties", {}) for part, key in PARTS.items()):
        raise OperationError("the deployed function is an image, whose files the template lacks")
    return [
        part
        for part, key in PARTS.items()
        if _uploaded(resources[part]["Properties"][key]) != _digest(build / part)
    ]


def _uploaded(location: Any) -> str:  # noqa: ANN401 a URI, or a mapping of its parts
    key: str = location if isinstance(location, str) else location["Key"]
    return key.rpartition("/")[2]


def _digest(directory: Path) -> str:
    from samcli.lib.utils.hash import dir_checksum

    digest: str = dir_checksum(str(directory), followlinks=True)
    return digest
