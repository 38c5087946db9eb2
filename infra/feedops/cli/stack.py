"""Commands about what is deployed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from feedops.cli.app import messages, output
from feedops.display import print_whole, steps


def build(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Bundle directory that goes into the model layer.",
            show_default="layers/model/bundle",
        ),
    ] = None,
    architecture: Annotated[
        Literal["x86_64", "arm64"], typer.Option(help="Processor architecture of the function.")
    ] = "x86_64",
    image: Annotated[
        bool,
        typer.Option(
            "--image",
            help="Build the stack into .aws-sam/image too, with the function as a container image. "
            "Needs Docker or Podman.",
        ),
    ] = False,
    base_image: Annotated[
        str | None,
        typer.Option(
            help="Base of that image, such as a mirror of it.", show_default="by AWS, pinned"
        ),
    ] = None,
) -> None:
    """Build function and layers into .aws-sam/build with SAM, without Docker."""
    from feedops.stack import environments
    from feedops.stack.budget import measure, print_budget
    from feedops.stack.build import BUILD, BUNDLE
    from feedops.stack.build import build as run_build

    environments.check()
    with steps(messages, "Building function and layers with SAM, about a minute"):
        run_build(BUILD, bundle or BUNDLE, architecture)
    if image or base_image:  # which may have 10 GB
        _build_image(architecture, base_image)
    else:
        print_budget(measure(), output)


def _build_image(architecture: Literal["x86_64", "arm64"], base_image: str | None) -> None:
    from feedops.stack.build import BUILD
    from feedops.stack.lambda_image import DEPLOY, IMAGE_BUILD, build_image

    with steps(messages, "Building the image of them"):
        build_image(IMAGE_BUILD, BUILD, architecture, base_image)
    print_whole(output, f"deploy it with: {DEPLOY}")


def budget(
    build: Annotated[
        Path | None, typer.Argument(help="Build directory.", show_default=".aws-sam/build")
    ] = None,
) -> None:
    """Show the unzipped size of a build by part and package; fail if it is over 200 MB."""
    from feedops.stack.budget import measure, print_budget
    from feedops.stack.build import BUILD

    print_budget(measure(build or BUILD), output)
