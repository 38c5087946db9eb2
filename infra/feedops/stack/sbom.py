"""Bills of materials (CycloneDX): of the layers as they are built, of the images as locked."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from feedops.workspace import PROJECT
from feedrank.bundle.layout import MANIFEST, parse_manifest

IMAGES = ("cpu", "gpu")
# The lists in their directory with/ are for who wants them.
OPTIONS = ("sdk", "torch")
DEVELOPMENT_LIST = PROJECT / "requirements-dev.lock"
LAYER_LIST = PROJECT / "layers" / "runtime" / "requirements.txt"
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "python_full_version": "3.13.0"}
# SPDX ids, by what packages without a License-Expression have in their metadata.
SPDX = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",  # python-dateutil
}
UNKNOWN = "unknown"
LAYER_LICENCES = LAYER_LIST.with_name("LICENSES.md")
IMAGE_LICENCES = PROJECT / "infra" / "images" / "LICENSES.md"
HEADING = """# Licences of {}

Made by `make licences`, from each package's own metadata. A test refuses a licence that nobody
has agreed to.

"""
TABLE = "| package | licence |\n| --- | --- |"
CUDA = """`LicenseRef-NVIDIA-Proprietary` and `NVIDIA Proprietary Software` are NVIDIA's own terms:
read them before you pass on a GPU image.
"""
# What pip reads of the packages that the development environment lacks; `make lock` writes it.
CUDA_LICENCES = PROJECT / "infra" / "images" / "gpu" / "licences.json"


def write_boms(build: Path, into: Path) -> list[Path]:
    """`runtime-layer`, `model-layer`, `image-cpu` and `image-gpu`, each a `.cdx.json`."""
    boms = {
        "runtime-layer": runtime_layer(build / "RuntimeLayer" / "python"),
        "model-layer": model_layer(build / "ModelLayer" / "model"),
        **{f"image-{name}": image(name) for name in IMAGES},
    }
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for name, bom in boms.items():
        root = Component(name=f"feedrank {name}", type=ComponentType.APPLICATION)
        bom.metadata.component = root
        bom.register_dependency(root, bom.components)
        path = into / f"{name}.cdx.json"
        path.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n")
        written.append(path)
    return written


def runtime_layer(site: Path) -> Bom:
    """Of the packages that are installed in this directory."""
    packages = distributions(path=[str(site)])
    return Bom(
        components=[_package(d.name, d.version, licence_of(d.metadata.json)) for d in packages]
    )


def model_layer(model: Path) -> Bom:
    """Of all files, with their hashes; the model files have the model's version."""
    manifest = parse_manifest((model / MANIFEST).read_bytes())
    files = sorted(path for path in model.rglob("*") if path.is_file())
    return Bom(components=[_file(path, model, manifest.model_version) for path in files])


def image(name: str) -> Bom:
    """Of the locked lists that its Dockerfile installs, without the base image."""
    lists = (LAYER_LIST, PROJECT / "infra" / "images" / name / "requirements.txt")
    pins = [pin for path in lists for pin in locked(path)]
    return Bom(components=[_package(n, v, _licence_here(n, v)) for n, v in pins])


def locked(path: Path) -> list[tuple[str, str]]:
    """Names and versions of the requirements for Linux and Python 3.13."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    requirements = [
        Requirement(line.partition(" --hash")[0].strip())
        for line in lines
        if line and not line.startswith("#")
    ]
    return [
        (requirement.name, next(iter(requirement.specifier)).version)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(LINUX)
    ]


def licence_of(fields: Mapping[str, Any]) -> str:
    """An SPDX expression, else the text in the metadata, else `unknown`."""
    if expression := fields.get("license_expression"):
        return str(expression)
    text = str(fields.get("license") or "").strip()
    if text and "\n" not in text:
        return SPDX.get(text, text)
    prefix = "License :: OSI Approved :: "
    classifiers = fields.get("classifier") or []
    names = [c.removeprefix(prefix) for c in classifiers if c.startswith(prefix)]
    return " AND ".join(sorted(SPDX.get(name, name) for name in names)) or UNKNOWN


def tables() -> dict[Path, str]:
    """The contents of the repository's lists of licences, by path."""
    layer = "\n".join(_rows(locked(LAYER_LIST)))
    images = IMAGE_LICENCES.parent
    lists = {name: images / name / "requirements.txt" for name in IMAGES}
    lists |= {f"with {name}": images / "with" / f"{name}.txt" for name in OPTIONS}
    sections = "".join(
        f"\n## {name}\n\n{TABLE}\n" + "".join(f"{row}\n" for row in _rows(locked(path)))
        for name, path in lists.items()
    )
    of_images = HEADING.format("the images, beside the runtime layer and Python")
    return {
        LAYER_LICENCES: f"{HEADING.format('the runtime layer')}{TABLE}\n{layer}\n",
        IMAGE_LICENCES: f"{of_images}{CUDA}{sections}",
    }


def _rows(pins: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"| {canonicalize_name(n)} {v} | {_licence_here(n, v)} |" for n, v in sorted(pins))


def licences(bom: Path) -> dict[str, str]:
    """Each package's licence, as the written document has it."""
    components = json.loads(bom.read_text())["components"]
    return {
        f"{c['name']} {c['version']}": _licence_in(c["licenses"]) if "licenses" in c else UNKNOWN
        for c in components
        if c["type"] == "library"
    }


def _licence_in(entries: list[dict[str, object]]) -> str:
    (entry,) = entries
    if "expression" in entry:
        return str(entry["expression"])
    licence = entry["license"]
    assert isinstance(licence, dict)
    return str(licence.get("id") or licence["name"])


def _licence_here(name: str, version: str) -> str:
    """From the development environment, which has the images' packages except CUDA's."""
    if licence := _cuda_licences().get(f"{canonicalize_name(name)} {version}"):
        return licence
    try:
        here: Distribution = distribution(name)
    except ModuleNotFoundError:
        return UNKNOWN
    same = here.version.partition("+")[0] == version
    return licence_of(here.metadata.json) if same else UNKNOWN


@cache
def _cuda_licences() -> dict[str, str]:
    licences: dict[str, str] = json.loads(CUDA_LICENCES.read_bytes())
    return licences


def write_cuda_licences(report: Path) -> None:
    """Of what pip reports of the GPU image's list, those that the development environment's list
    lacks."""
    installs = [entry["metadata"] for entry in json.loads(report.read_bytes())["install"]]
    here = {canonicalize_name(name) for name, _ in locked(DEVELOPMENT_LIST)}
    licences = {
        f"{canonicalize_name(metadata['name'])} {metadata['version']}": licence_of(metadata)
        for metadata in installs
        if canonicalize_name(metadata["name"]) not in here
    }
    CUDA_LICENCES.write_text(json.dumps(licences, indent=1, sort_keys=True) + "\n")


def _package(name: str, version: str, licence: str) -> Component:
    name = canonicalize_name(name)
    purl = PackageURL("pypi", name=name, version=version)
    licenses: Iterable[object] = (
        [] if licence == UNKNOWN else [LicenseFactory().make_from_string(licence)]
    )
    return Component(
        name=name,
        version=version,
        purl=purl,
        bom_ref=str(purl),
        licenses=licenses,  # type: ignore[arg-type]
    )


def _file(path: Path, root: Path, model_version: str) -> Component:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    is_model = bool(re.search(r"\.(onnx|pt2)$", path.name))
    name = path.relative_to(root).as_posix()
    return Component(
        name=name,
        type=ComponentType.MACHINE_LEARNING_MODEL if is_model else ComponentType.FILE,
        version=model_version if is_model else None,
        bom_ref=name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


if __name__ == "__main__":
    for report in sys.argv[1:]:
        write_cuda_licences(Path(report))
    for path, text in tables().items():
        path.write_text(text)
