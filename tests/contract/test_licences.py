"""Everything that is deployed may be distributed: each licence is known and accepted."""

import re

import pytest
from license_expression import get_spdx_licensing

from feedops.stack import sbom

# Licences without conditions for the software that uses the package.
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "MIT", "MIT-0"),
    *("PSF-2.0", "Zlib", "LLVM-exception"),
}
# Others, by package, with the reason for accepting them.
ACCEPTED = {
    "orjson": {"MPL-2.0"},  # applies to changed files; we change none
}
NVIDIAS_TERMS = {"LicenseRef-NVIDIA-Proprietary", "NVIDIA Proprietary Software"}
SPDX = get_spdx_licensing()


def _licences(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (\S+) \S+ \| (.+) \|$", text, re.MULTILINE))


def _refused(package: str, licence: str) -> set[str]:
    """The keys that are not accepted. Of an OR, the alternative with the fewest counts."""
    allowed = PERMISSIVE | ACCEPTED.get(package, set())
    parsed = SPDX.parse(licence, validate=True)
    return _needed(parsed, allowed)


def _needed(parsed: object, allowed: set[str]) -> set[str]:
    arguments = [_needed(part, allowed) for part in getattr(parsed, "args", ())]
    if not arguments:
        return set(SPDX.license_keys(parsed)) - allowed
    if type(parsed).__name__ == "OR":
        return min(arguments, key=len)
    return set().union(*arguments)


def test_the_lists_agree_with_the_packages() -> None:
    for path, text in sbom.tables().items():
        assert path.read_text() == text, "run `make licences`"


def test_every_licence_is_accepted() -> None:
    licences: dict[str, str] = {}
    for text in sbom.tables().values():
        licences |= _licences(text)
    assert len(licences) > 40
    of_nvidia = {name for name, licence in licences.items() if licence in NVIDIAS_TERMS}
    assert {name for name in of_nvidia if not name.startswith("nvidia-")} == set()
    refused = {name: _refused(name, licences[name]) for name in licences.keys() - of_nvidia}
    assert {name: keys for name, keys in refused.items() if keys} == {}


@pytest.mark.parametrize(
    ("package", "licence", "keys"),
    [
        ("a", "GPL-3.0-only", {"GPL-3.0-only"}),
        ("a", "MIT AND AGPL-3.0-or-later", {"AGPL-3.0-or-later"}),
        ("a", "MIT OR GPL-2.0-only", set()),
        ("a", "MPL-2.0 AND (Apache-2.0 OR MIT)", {"MPL-2.0"}),
        ("orjson", "MPL-2.0 AND (Apache-2.0 OR MIT)", set()),
        ("a", "Apache-2.0 WITH LLVM-exception", set()),
    ],
)
def test_a_licence_with_conditions_is_refused(package: str, licence: str, keys: set[str]) -> None:
    assert _refused(package, licence) == keys


def test_an_unknown_licence_is_refused() -> None:
    with pytest.raises(Exception, match="Unknown license key"):
        _refused("a", "See the file")
