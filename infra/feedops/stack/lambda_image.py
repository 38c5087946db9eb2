"""The stack with its function as a container image, in place of a zip and layers.

Its template is made from template.yaml at each build, so nothing but the kind of package can differ
between the two; the image holds the files that the zip deployment holds.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any

from feedops.errors import BuildError
from feedops.stack.build import BUILD, STATE, Architecture, run_sam_build
from feedops.stack.template import load
from feedops.workspace import PROJECT
from feedrank.bundle.layout import GOLDEN, MANIFEST

CONFIG = PROJECT / "samconfig.toml"
IMAGE_BUILD = STATE / "image"
DOCKERFILE = PROJECT / "infra" / "images" / "lambda" / "Dockerfile"
REPOSITORY = "feedrank-lambda"
TEMPLATE = "image.yaml"  # beside the build that it is made of
HOOK_LAYER = "hook"  # there too
DEPLOY = (
    "sam deploy --config-env dev --template-file .aws-sam/image/template.yaml --resolve-image-repos"
)
PROPERTIES_OF_A_ZIP = ("CodeUri", "Handler", "Runtime", "Layers")


def as_image(template: Mapping[str, Any], parts: Path) -> dict[str, Any]:
    """`template`, the content of template.yaml, with `Function` as an image of the build `parts`;
    for a file beside that, since SAM reads paths relative to the file.

    The model layer has only what the hook of a release reads, so that the bundle may be larger.
    """
    variant = copy.deepcopy(dict(template))
    resources = variant["Resources"]
    del resources["RuntimeLayer"]
    resources["ModelLayer"]["Metadata"] = {"SkipBuild": True}
    resources["ModelLayer"]["Properties"]["ContentUri"] = HOOK_LAYER
    function = resources["Function"]
    for name in PROPERTIES_OF_A_ZIP:
        del function["Properties"][name]
    function["Properties"]["PackageType"] = "Image"
    del function["Metadata"]["BuildMethod"]
    function["Metadata"] |= {
        "DockerContext": parts.name,
        "Dockerfile": DOCKERFILE.name,
        "DockerImage": REPOSITORY,
    }
    for resource in resources.values():
        if path := resource.get("Properties", {}).get("TemplateURL"):
            resource["Properties"]["TemplateURL"] = relpath(PROJECT / path, parts.parent)
    return variant


def build_image(
    directory: Path = IMAGE_BUILD,
    parts: Path = BUILD,
    architecture: Architecture = "x86_64",
    base: str | None = None,
) -> None:
    """Build the image of `parts`, a finished build, and write the stack's template to `directory`.
    `base` replaces the Dockerfile's base image. Needs a container engine. Raises BuildError."""
    model = parts / "ModelLayer" / "model"
    if not model.is_dir():
        raise BuildError(f"no build in {parts}\nbuild with: make build")
    parts = parts.absolute()
    variant = as_image(load(PROJECT / "template.yaml"), parts)
    if base:
        variant["Resources"]["Function"]["Metadata"]["DockerBuildArgs"] = {"BASE": base}
    write_hook_layer(model, parts.parent / HOOK_LAYER)
    shutil.copy(DOCKERFILE, parts)  # SAM builds with none from outside the context
    template = parts.parent / TEMPLATE
    template.write_text(json.dumps(variant, indent=1))
    run_sam_build(template, directory, architecture)
    # SAM looks for its configuration beside the template that a command names.
    (directory / CONFIG.name).symlink_to(CONFIG)


def write_hook_layer(model: Path, layer: Path) -> None:
    """What the hook of a release reads of the bundle `model`, as the content of /opt."""
    for name in (MANIFEST, GOLDEN):
        copied = layer / "model" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model / name, copied)
