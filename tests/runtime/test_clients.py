"""The clients of infra/clients, and curl as their page has it, at a server that checks callers."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from feedops.workspace import PROJECT
from guard import JWT, KEY, REGION, SECRET, SERVICE, TOKEN, Refusal, guard
from uvicorns import uvicorn

CLIENTS = PROJECT / "infra" / "clients"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
}
BUDGET_S = 60.0  # a busy machine takes none of it from what a test is about
REQUEST: dict[str, Any] = {"user_id": 123, "item_ids": [1001, 1002, 1003]}
NODE = f"""
import * as c from "{CLIENTS / "feedrank-client.mjs"}"
const [url, kind, seconds, request] = process.argv.slice(2)
const auth = new Map([["jwt", c.bearer(() => "{JWT}")], ["iam", c.sigv4("{REGION}")]]).get(kind)
const ranker = new c.Ranker(url + "/", {{ auth, budgetMs: 1000 * seconds }})
console.log(JSON.stringify(await ranker.rank(JSON.parse(request))))
"""


def _client() -> ModuleType:
    spec = spec_from_file_location("feedrank_client", CLIENTS / "feedrank_client.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


feedrank_client = _client()
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js")
LANGUAGES = [
    "python",
    pytest.param(
        "node",
        marks=[needs_node, pytest.mark.substituted_by("tests/runtime/test_clients.py")],
    ),
]


@pytest.fixture(scope="module")
def server(demo_bundle: Path) -> Iterator[str]:
    with uvicorn(demo_bundle) as server:
        yield server.url


class Call(NamedTuple):
    """Sends a request by one of the clients: the ranking, or the text of the error."""

    language: str
    directory: Path

    def __call__(
        self, url: str, auth: str, request: dict[str, Any] = REQUEST
    ) -> dict[str, Any] | str:
        if self.language == "python":
            return _by_python(url, auth, request)
        (main := self.directory / "main.mjs").write_text(NODE)
        arguments = [str(main), url, auth, str(BUDGET_S), json.dumps(request)]
        result = subprocess.run(["node", *arguments], capture_output=True, text=True, check=False)
        return result.stderr if result.returncode else dict(json.loads(result.stdout))


def _by_python(url: str, auth: str, request: dict[str, Any]) -> dict[str, Any] | str:
    auths = {"none": feedrank_client.no_auth, "jwt": feedrank_client.bearer(lambda: JWT)}
    chosen = auths.get(auth) or feedrank_client.sigv4(REGION)
    try:
        return dict(feedrank_client.Ranker(url + "/", chosen, BUDGET_S).rank(request))
    except feedrank_client.RefusedError as error:
        return str(error)


@pytest.fixture
def call(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any] | str]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Call(language, tmp_path)


@pytest.mark.parametrize("auth", ["none", "jwt", "iam"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_kind_of_caller_gets_a_ranking_through_refusals(
    call: Call, auth: str, server: str
) -> None:
    refusals = [Refusal(429), Refusal(503, "1"), Refusal(0)]
    with guard(server, auth, *refusals) as front:
        ranking = call(front.url, auth)
    assert isinstance(ranking, dict), ranking
    assert sorted(each["item_id"] for each in ranking["predictions"]) == REQUEST["item_ids"]
    assert front.statuses == [429, 503, 0, 200]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_no_repetition_changes_is_an_error_at_once(call: Call, server: str) -> None:
    with guard(server, "none") as front:
        assert "status 422" in call(front.url, "none", {"user_id": -1})
    assert front.statuses == [422]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wait_longer_than_the_budget_is_not_begun(call: Call, server: str) -> None:
    with guard(server, "none", Refusal(503, "3600")) as front:
        assert "status 503" in call(front.url, "none")
    assert front.statuses == [503]


@pytest.mark.parametrize("language", ["python"])
def test_the_guard_refuses_other_callers(call: Call, server: str) -> None:
    """Else it would be none."""
    with guard(server, "iam") as front:
        assert all("status 403" in call(front.url, auth) for auth in ("none", "jwt"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.substituted_by("tests/runtime/test_clients.py")
def test_curl_signs_as_the_page_says(server: str) -> None:
    page = (CLIENTS / "README.md").read_text()
    (command,) = re.findall(r"^\$ (curl [^`]*?)\n```", page, re.MULTILINE)
    with guard(server, "iam") as front:
        command = command.replace("https://abc123.execute-api.eu-west-1.amazonaws.com", front.url)
        env = {"PATH": os.environ["PATH"], **CREDENTIALS}
        printed = subprocess.check_output(["bash", "-c", command], env=env, text=True)
    assert front.statuses == [200]
    assert len(json.loads(printed)["predictions"]) == len(REQUEST["item_ids"])
    assert f"aws:amz:{REGION}:{SERVICE}" in command
