"""What is deployed may be passed on: each licence is known, and agreed to."""

import re

import pytest
from license_expression import get_spdx_licensing

from feedops.stack import sbom

# None of them asks anything of what it is used with.
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "MIT", "MIT-0"),
    *("PSF-2.0", "Zlib", "LLVM-exception"),
}
# Others, by package, with why they may be there.
AGREED = {
    "orjson": {"MPL-2.0"},  # of each file, for changes to it; we make none
}
SPDX = get_spdx_licensing()


def _listed(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (\S+) \S+ \| (.+) \|$", text, re.MULTILINE))


def _refused(package: str, licence: str) -> set[str]:
    """An OR may be taken either way: it is simplified to what is allowed first."""
    allowed = PERMISSIVE | AGREED.get(package, set())
    parsed = SPDX.parse(licence, validate=True)
    return _needed(parsed, allowed)


def _needed(parsed: object, allowed: set[str]) -> set[str]:
    arguments = [_needed(part, allowed) for part in getattr(parsed, "args", ())]
    if not arguments:
        return set(SPDX.license_keys(parsed)) - allowed
    if type(parsed).__name__ == "OR":
        return min(arguments, key=len)
    return set().union(*arguments)


def test_the_lists_are_what_the_packages_say() -> None:
    for path, text in sbom.tables().items():
        assert path.read_text() == text, "run `make licences`"


def test_each_licence_is_agreed_to() -> None:
    listed: dict[str, str] = {}
    for text in sbom.tables().values():
        listed |= _listed(text)
    assert len(listed) > 40
    of_cuda = {n for n in listed if n.startswith(("nvidia-", "cuda-")) or n == "triton"}
    assert {name for name, licence in listed.items() if licence == sbom.UNKNOWN} == of_cuda
    refused = {name: _refused(name, listed[name]) for name in listed.keys() - of_cuda}
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
def test_a_licence_that_asks_for_more_is_refused(
    package: str, licence: str, keys: set[str]
) -> None:
    assert _refused(package, licence) == keys


def test_words_that_are_no_licence_are_refused() -> None:
    with pytest.raises(Exception, match="Unknown license key"):
        _refused("a", "See the file")
