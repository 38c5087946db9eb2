"""The team's own file: what it may hold, and what is refused."""

from pathlib import Path

import pytest

from feedrank.errors import SettingsError
from feedrank.extensions import Extensions, load_extensions, load_extensions_file
from feedrank.features import expressions as context

STAGE = """
class Stage:
    name = "as it is"
    def reorder(self, scored):
        return scored.order
"""

SINK = """
from feedrank.decisions.sinks import DecisionSink

class Sink(DecisionSink):
    {}(self, record): ...

SINKS = [Sink()]
"""


@pytest.fixture(autouse=True)
def _no_expression_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_registered", {})


def _load(directory: Path, text: str) -> Extensions:
    file = directory / "extensions.py"
    file.write_text(text)
    return load_extensions_file(file)


def _refusal(directory: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        _load(directory, text)
    assert context._registered == {}
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def test_without_a_module_there_is_nothing() -> None:
    assert load_extensions("") == Extensions()


def test_a_module_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts.py").write_text(STAGE + "STAGES = [Stage()]")
    monkeypatch.syspath_prepend(tmp_path)
    assert [stage.name for stage in load_extensions("own_parts").stages] == ["as it is"]


def test_everything_that_a_file_may_set_is_taken(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        STAGE
        + """
from fastapi import APIRouter, Depends
from starlette.middleware import Middleware
from feedrank.features.expressions import ContextFeature

from feedrank.decisions.sinks import DecisionSink

class Sink(DecisionSink):
    def write(self, record): ...

def store(snapshot, spec):
    return snapshot

def two() -> ContextFeature:
    return ContextFeature(lambda context, time_s: 2.0)

def check(): ...

LIMIT = 3
STAGES = (Stage(),)
STORES = [store]
SINKS = [Sink()]
EXPRESSIONS = {"two": two}
ROUTERS = [APIRouter()]
DEPENDENCIES = [Depends(check)]
MIDDLEWARE = [Middleware(object)]
""",
    )
    sizes = [
        len(part)
        for part in (
            loaded.stages,
            loaded.stores,
            loaded.sinks,
            loaded.expressions,
            loaded.routers,
            loaded.dependencies,
            loaded.middleware,
        )
    ]
    assert sizes == [1] * 7
    assert context.parse("two").compute({}, 0) == 2.0


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("STAGE = []", "STAGE is no name of an extension; STAGES is one"),
        ("SINKS = []\nMIDLEWARE = []", "MIDLEWARE is no name of an extension; MIDDLEWARE is one"),
        ("x = 1", "it sets none of STAGES, STORES, SINKS, ROUTERS, DEPENDENCIES, MIDDLEWARE, "),
        ("SINKS = 5", "SINKS must be a list or a tuple"),
        ("STAGES = [len]", "STAGES[0] must be a RankingStage: an object with a `name` and "),
        (STAGE + "STAGES = [Stage]", "STAGES[0] must be a RankingStage: an object with "),
        (STAGE + "STAGES = [Stage()] * 2", "STAGES must have names that differ"),
        ("STORES = [5]", "STORES[0] must be a function from a FeatureStore and a FeatureSpec to "),
        (
            SINK.format("async def write"),
            "SINKS[0] must be a DecisionSink: a subclass's object with ",
        ),
        (
            SINK.format("def write").replace("SINKS", "    async def connect(self): ...\n\nSINKS"),
            "SINKS[0] must be a DecisionSink: a subclass's object with ",
        ),
        (SINK.format("def wirte"), "SINKS[0] must be a DecisionSink: a subclass's object with "),
        ("SINKS = [print]", "SINKS[0] must be a DecisionSink: a subclass's object with "),
        ("ROUTERS = [print]", "ROUTERS[0] must be FastAPI's APIRouter"),
        ("DEPENDENCIES = [print]", "DEPENDENCIES[0] must be FastAPI's Depends(...)"),
        ("MIDDLEWARE = [print]", "MIDDLEWARE[0] must be Starlette's Middleware(...)"),
        ("EXPRESSIONS = []", "EXPRESSIONS must be a dict"),
        ("EXPRESSIONS = {'hour': print}", "EXPRESSIONS: hour is a built-in expression's name"),
        ("EXPRESSIONS = {'a b': print}", "EXPRESSIONS: 'a b' must be a name, as of a function"),
        ("EXPRESSIONS = {'two': 2}", "EXPRESSIONS: two must be a function that returns a "),
    ],
)
def test_what_is_no_extension_is_refused_by_name(tmp_path: Path, text: str, start: str) -> None:
    assert any(line.startswith(start) for line in _refusal(tmp_path, text))


@pytest.mark.parametrize(
    ("unguarded", "name"),
    [
        ("router.add_route('/plain', print)", "/plain"),
        ("router.mount('/other', print)", "/other"),
        ("router.host('other.example', print)", "Host"),
        ("inner.mount('/other', print); router.include_router(inner, prefix='/v2')", "/other"),
    ],
)
def test_a_route_that_no_dependency_can_guard_is_refused_beside_one(
    tmp_path: Path, unguarded: str, name: str
) -> None:
    text = f"""
from fastapi import APIRouter, Depends

def check(): ...

router, inner = APIRouter(), APIRouter()

@router.get("/guarded")
def guarded(): ...

{unguarded}
ROUTERS = [router]
"""
    assert _load(tmp_path, text).routers
    assert _refusal(tmp_path, text + "DEPENDENCIES = [Depends(check)]") == [
        f"ROUTERS[0]: DEPENDENCIES can't guard {name}, no route of FastAPI's"
    ]


@pytest.mark.parametrize("prefix", ["", "/model"])
def test_a_route_that_the_service_has_is_refused(tmp_path: Path, prefix: str) -> None:
    text = f"""
from fastapi import APIRouter

router, inner = APIRouter(), APIRouter()
inner.get("/other")(lambda: 1)
inner.get("{"" if prefix else "/model"}")(lambda: 1)
router.include_router(inner, prefix="{prefix}")
ROUTERS = [APIRouter(), router]
"""
    assert _refusal(tmp_path, text) == ["ROUTERS[1]: GET /model is a route of the service"]


def test_a_module_that_is_not_there_is_refused_by_the_settings_name() -> None:
    with pytest.raises(SettingsError, match=r"^EXTENSIONS: no_such_module can't be imported: "):
        load_extensions("no_such_module")


def test_a_file_that_fails_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"extensions\.py: can't be imported: ZeroDivision"):
        _load(tmp_path, "1 / 0")
