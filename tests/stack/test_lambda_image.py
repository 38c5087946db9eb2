"""The stack with its function as a container image, compared with the one of the zip."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.errors import BuildError
from feedops.stack.budget import LEFT_BYTES, PARTS
from feedops.stack.build import BUILD, BUNDLE
from feedops.stack.lambda_image import (
    CONFIG,
    DEPLOY,
    DOCKERFILE,
    IMAGE_BUILD,
    as_image,
    build_image,
    write_hook_layer,
)
from feedops.workspace import PROJECT
from feedrank.bundle.layout import MANIFEST
from stack import checks
from stack.hook import load_canary
from stack.test_commands import _run, checkout  # noqa: F401 a fixture
from stack.test_scans import DEPLOYMENTS, WAIVED
from stack.transform import Json, resolved, template, transformed

REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/feedrank"
TEXT = DOCKERFILE.read_text()
OF_A_ZIP = {"Code", "Handler", "Runtime", "Layers"}


def _variant() -> dict[str, Json]:
    return as_image(template(), BUILD)


def _after_sam(build: str = "0") -> dict[str, Json]:
    """As `sam package` leaves it and SAM transforms it; the paths are another test's."""
    source, zipped = _variant(), template()["Resources"]
    source["Resources"]["Function"]["Properties"]["ImageUri"] = f"{REPOSITORY}:function-{build}"
    for name, resource in source["Resources"].items():
        for key in {"TemplateURL", "ContentUri"} & resource.get("Properties", {}).keys():
            resource["Properties"][key] = zipped[name]["Properties"][key]
    after_sam: dict[str, Json] = transformed(source)
    return after_sam


def test_the_two_stacks_differ_in_the_function_and_its_layer_alone() -> None:
    zipped, image = transformed(), _after_sam()
    old, new = (
        next(n for n in source["Resources"] if n.startswith("FunctionVersion"))
        for source in (zipped, image)
    )
    image = json.loads(json.dumps(image).replace(new, old))  # its id is of the code's location
    for name in ("Parameters", "Rules", "Conditions", "Mappings", "Outputs"):
        assert image[name] == zipped[name]
    resources = zipped["Resources"].keys()
    missing = {name for name in resources if name not in image["Resources"]}
    assert [name.startswith("RuntimeLayer") for name in missing] == [True]
    assert image["Resources"].keys() == resources - missing
    changed = {n for n, r in image["Resources"].items() if r != zipped["Resources"][n]}
    assert changed == {"Function"}


def test_the_functions_differ_in_what_a_package_has_alone() -> None:
    zipped, image = (
        resolved(source)["Resources"]["Function"]["Properties"]
        for source in (transformed(), _after_sam())
    )
    assert zipped.keys() - image.keys() == OF_A_ZIP - {"Code"}
    assert image.keys() - zipped.keys() == {"PackageType"}
    assert image["PackageType"] == "Image"
    assert image["Code"] == {"ImageUri": f"{REPOSITORY}:function-0"}
    assert {k: v for k, v in image.items() if k in zipped and k != "Code"} == {
        k: v for k, v in zipped.items() if k not in OF_A_ZIP
    }


def test_every_image_is_published_as_a_version_of_its_own() -> None:
    aliases = [
        _after_sam(build)["Resources"]["FunctionAliaslive"]["Properties"]["FunctionVersion"]
        for build in ("0", "0", "1")
    ]
    assert aliases[0] == aliases[1] != aliases[2]


def test_the_scanners_report_nothing() -> None:
    after_sam = _after_sam()
    findings = checks.of_cfnlint(after_sam)
    for parameters in DEPLOYMENTS["template"][:2]:
        decided = resolved(after_sam, **parameters)
        findings |= checks.of_guard(decided) | checks.of_ours(decided)
    assert findings - WAIVED == set()


def test_the_paths_of_the_template_lead_where_it_is_written() -> None:
    source, variant = template()["Resources"], _variant()["Resources"]
    for name, resource in variant.items():
        if path := resource.get("Properties", {}).get("TemplateURL"):
            expected = PROJECT / source[name]["Properties"]["TemplateURL"]
            assert (BUILD.parent / path).resolve() == expected
    assert BUILD.parent / variant["Function"]["Metadata"]["DockerContext"] == BUILD


def test_the_model_layer_has_what_the_hook_reads_of_a_bundle(
    served: tuple[TestClient, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bundle = served
    canary = load_canary()

    def request(_: Any, method: str, path: str, body: object = None) -> Any:
        return client.request(method, path, json=body).json()

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(canary.FunctionVersion, "request", request)
    write_hook_layer(bundle, tmp_path)
    assert canary.judge("arn:version", str(tmp_path / "model"), "", "number") > 0
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < LEFT_BYTES / 100


def test_the_image_has_every_part_of_the_build_where_lambda_would_unpack_it() -> None:
    copies = [line.split() for line in re.findall(r"^COPY (.+)$", TEXT, re.MULTILINE)]
    where = {source.rstrip("/"): target for *sources, target in copies for source in sources}
    assert where == {part: "/var/task/" if part == "Function" else "/opt/" for part in PARTS}


def test_the_image_runs_what_the_zip_runs_on_aws_own_base_pinned_by_digest() -> None:
    function = template()["Resources"]["Function"]["Properties"]
    assert re.findall(r"^CMD (.+)$", TEXT, re.MULTILINE) == [f'["{function["Handler"]}"]']
    (base,) = re.findall(r"^ARG BASE=(.+)$", TEXT, re.MULTILINE)
    runtime = function["Runtime"].replace("python", "python:")
    assert re.fullmatch(rf"public\.ecr\.aws/lambda/{runtime}@sha256:[0-9a-f]{{64}}", base)
    assert re.findall(r"^FROM (.+)$", TEXT, re.MULTILINE) == ["${BASE}"]


def test_an_image_of_no_build_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="make build"):
        build_image(tmp_path / "image", tmp_path / "build")


@pytest.mark.parametrize("part", ["Function", "ModelLayer"])
def test_any_user_can_read_a_build(part: str, tmp_path: Path) -> None:
    """Lambda's is not the one who built, whose files may be private."""
    bundle, artifact = tmp_path / "bundle", tmp_path / part
    (bundle / "serving").mkdir(parents=True)
    (bundle / MANIFEST).touch(mode=0o600)
    (bundle / "serving").chmod(0o700)
    artifact.mkdir(mode=0o700)
    subprocess.run(
        [
            *("make", "--silent", f"build-{part}", f"ARTIFACTS_DIR={artifact}"),
            *(f"BUNDLE={bundle}", f"LAMBDA_PYTHON={sys.executable}"),
        ],
        cwd=PROJECT / {"Function": "function", "ModelLayer": "layers/model"}[part],
        umask=0o077,
        check=True,
    )
    modes = {path: path.stat().st_mode for path in (artifact, *artifact.rglob("*"))}
    assert len(modes) > 3
    assert [path for path, mode in modes.items() if not mode & 0o004] == []
    assert [path for path, mode in modes.items() if path.is_dir() and not mode & 0o001] == []


def test_the_command_builds_the_image_of_the_finished_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []
    for name in ("environments.check", "budget.measure", "budget.print_budget"):
        monkeypatch.setattr(f"feedops.stack.{name}", lambda *_: None)
    monkeypatch.setattr("feedops.stack.build.build", lambda *of: calls.append(("zip", *of)))
    monkeypatch.setattr(
        "feedops.stack.lambda_image.build_image", lambda *of: calls.append(("image", *of))
    )
    options = ["--architecture", "arm64", "--base-image", "mirror/python:3.13"]
    result = CliRunner().invoke(app, ["build", "--image", *options])
    assert result.exit_code == 0, result.stderr
    assert calls == [
        ("zip", BUILD, BUNDLE, "arm64"),
        ("image", IMAGE_BUILD, BUILD, "arm64", "mirror/python:3.13"),
    ]
    assert result.stdout.strip() == f"deploy it with: {DEPLOY}"
    template = re.findall(r"--template-file (\S+)", DEPLOY)
    assert template == [str((IMAGE_BUILD / "template.yaml").relative_to(PROJECT))]


def test_the_printed_command_deploys_the_image_of_the_environment(
    checkout: Path,  # noqa: F811
) -> None:
    """With samconfig.toml, which SAM would look for beside the template."""
    build = checkout / IMAGE_BUILD.relative_to(PROJECT)
    build.mkdir(parents=True)
    shutil.copy(checkout / "template.yaml", build)
    (build / CONFIG.name).symlink_to(checkout / CONFIG.name)
    options, result = _run(DEPLOY)
    assert result.exit_code == 0, result.output
    assert options["template_file"] == str(build / "template.yaml")
    assert (options["stack_name"], options["resolve_image_repos"]) == ("feedrank-dev", True)
    assert options["parameter_overrides"] == {"Environment": "dev"}
