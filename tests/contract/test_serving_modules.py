"""A serving process may import this list and the standard library.

Another package costs cold-start time and layer size. Measure both (`feedrank bench --only
"cold start"`), then add it here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedbench import traffic
from feedops.workspace import FUNCTION

ALLOWED = {
    "handler",
    "feedrank",
    # The function's own dependencies.
    "aws_lambda_powertools",
    "fastapi",
    "mangum",
    "numpy",
    "onnxruntime",
    "orjson",
    "pydantic",
    "starlette",
    # FastAPI imports it if it is installed. The layer lacks it; here model-signing requires it.
    "email_validator",
    "idna",
    # Their dependencies.
    "annotated_doc",
    "annotated_types",
    "anyio",
    "botocore",  # only its top module: Powertools adds its name to the user agent
    "jmespath",
    "opentelemetry",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
SERVE_ONCE = """
import json, sys
before = set(sys.modules)
import handler
event = json.load(sys.stdin)
class Context:
    function_name = "feedrank"
    memory_limit_in_mb = "1769"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    def get_remaining_time_in_millis(self):
        return 10_000
response = handler.lambda_handler(event, Context())
loaded = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()
          if name not in before}
print(json.dumps({"status": response["statusCode"], "loaded": loaded}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def imported(demo_bundle: Path) -> set[str]:
    """The top-level packages of a fresh process after its first ranked response."""
    (body,) = traffic.requests(demo_bundle, 5, 1)
    environ = {
        "PATH": os.defpath,
        "PYTHONPATH": str(FUNCTION),
        "MODEL_URI": str(demo_bundle),
        "AWS_LAMBDA_FUNCTION_NAME": "feedrank",
        "AWS_REGION": "eu-west-1",
    }
    process = subprocess.run(
        [sys.executable, "-c", SERVE_ONCE],
        input=json.dumps(traffic.event(body)),
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(process.stderr.splitlines()[-1])
    assert report["status"] == 200
    tops = {name.partition(".")[0] for name, file in report["loaded"].items() if file}
    third_party = tops - sys.stdlib_module_names
    return {name for name in third_party if not name.startswith("_sysconfigdata")}


def test_the_serving_process_imports_only_packages_on_the_list(imported: set[str]) -> None:
    assert imported - ALLOWED == set()


def test_every_package_on_the_list_is_imported(imported: set[str]) -> None:
    assert ALLOWED - imported == set()
