"""A team's own parts, which come from one Python file without a change here.

`EXTENSIONS` names the module, such as `extensions` for `function/extensions.py`; there is none by
default. It may set the names below, each a list or a tuple, `EXPRESSIONS` a dict:

    STAGES        `RankingStage`s that run after scoring, in this order
    STORES        functions that make a `FeatureStore` of the one before and the feature spec; the
                  first gets the bundle's snapshot
    SINKS         `DecisionSink`s beside the built-in ones
    EXPRESSIONS   context expressions by name: functions from their arguments, which are texts, to a
                  `ContextFeature`
    ROUTERS       FastAPI's `APIRouter`s
    DEPENDENCIES  FastAPI's `Depends(...)`, for every route
    MIDDLEWARE    Starlette's `Middleware(...)`, the outermost first

These names and protocols follow semantic versioning: a minor version may add to them, and only a
major one takes away or changes.
"""

import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from feedrank.errors import SettingsError
from feedrank.features import FeatureStore, StoreFactory
from feedrank.features import expressions as context
from feedrank.features.spec import FeatureSpec
from feedrank.ranking.stages import RankingStage

if TYPE_CHECKING:  # FastAPI is not for publishing, which needs the expressions alone
    from starlette.middleware import Middleware

    from feedrank.decisions.sinks import DecisionSink
    from feedrank.http.web import APIRouter, Depends

ALIKE = 0.8  # `difflib`'s ratio: a name in capitals that is so near to a known one is a mistake
SETTING = "EXTENSIONS"
STORE = "a FeatureStore: an object with `waits` and `fetch`; `connect` must not be async"


class Extensions(NamedTuple):
    """What the module has, checked; its expressions are registered already. A named tuple, since a
    dataclass takes 0.5 ms more of every cold start."""

    stages: tuple[RankingStage, ...] = ()
    stores: tuple[StoreFactory, ...] = ()
    sinks: tuple["DecisionSink", ...] = ()
    expressions: Mapping[str, context.Expression] = MappingProxyType({})
    routers: tuple["APIRouter", ...] = ()
    dependencies: tuple["Depends", ...] = ()
    middleware: tuple["Middleware", ...] = ()

    def store_chain(self, snapshot: FeatureStore, spec: FeatureSpec) -> tuple[FeatureStore, ...]:
        """The bundle's snapshot and the stores around it, from the inside; a model reads features
        from the last one."""
        chain = [snapshot]
        for number, make in enumerate(self.stores):
            store = make(chain[-1], spec)
            if not _is_store(store):
                raise SettingsError(f"{SETTING}: STORES[{number}] must return {STORE}")
            chain.append(store)
        return tuple(chain)


def load_extensions(module: str, *, sagemaker: bool = False) -> Extensions:
    """By the module's name; an empty one has none. Raises SettingsError, which names what is wrong
    in it. `sagemaker` says whether the service has SageMaker's routes."""
    if not module:
        return Extensions()
    try:
        extensions = import_module(module)
    except Exception as error:
        raise SettingsError(f"{SETTING}: {module} can't be imported: {_told(error)}") from error
    return _checked(extensions, sagemaker=sagemaker)


def load_extensions_file(path: Path) -> Extensions:
    """The same by its file, for publishing and training, which run beside no handler."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path}: must be a Python file")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(f"{path}: can't be imported: {_told(error)}") from error
    return _checked(module)


def _checked(module: ModuleType, *, sagemaker: bool = False) -> Extensions:
    wrong = [*_misspelt(module)]
    values: dict[str, Any] = {}
    for name, (what, is_one) in KINDS.items():
        value = getattr(module, name, ())
        if not isinstance(value, list | tuple):
            wrong.append(f"{name} must be a list or a tuple")
            continue
        wrong += [f"{name}[{n}] must be {what}" for n, v in enumerate(value) if not is_one(v)]
        values[name.lower()] = tuple(value)
    expressions = getattr(module, "EXPRESSIONS", {})
    wrong += _wrong_expressions(expressions)
    wrong += _shadowed(values.get("routers", ()), sagemaker=sagemaker)
    if values.get("dependencies"):
        wrong += _unguarded(values.get("routers", ()))
    if not wrong and len({stage.name for stage in values["stages"]}) < len(values["stages"]):
        wrong.append("STAGES must have names that differ")
    if wrong:
        raise SettingsError("\n  ".join([f"{SETTING}: {module.__name__} is refused:", *wrong]))
    context.register(expressions)
    return Extensions(**values, expressions=dict(expressions))


def _misspelt(module: ModuleType) -> Iterator[str]:
    from difflib import get_close_matches

    known = [*KINDS, "EXPRESSIONS"]
    for name in vars(module):
        near = get_close_matches(name, known, 1, ALIKE) if name.isupper() else []
        if near and name not in known:
            yield f"{name} is no name of an extension; {near[0]} is one"
    if not any(hasattr(module, name) for name in known):
        yield f"it sets none of {', '.join(known)}"


def _wrong_expressions(value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield "EXPRESSIONS must be a dict"
        return
    for name, expression in value.items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            yield f"EXPRESSIONS: {name!r} must be a name, as of a function"
        elif name in context.BUILT_IN:
            yield f"EXPRESSIONS: {name} is a built-in expression's name"
        elif not callable(expression):
            yield f"EXPRESSIONS: {name} must be a function that returns a ContextFeature"


def _shadowed(routers: Sequence["APIRouter"], *, sagemaker: bool) -> Iterator[str]:
    """Routes that would never be called, since the service's own come first."""
    if not routers:
        return
    from feedrank.http.routes import routes_of
    from feedrank.http.web import APIRouter, iter_route_contexts

    own = {(route.method, route.path) for route in routes_of(sagemaker=sagemaker)}
    for number, router in enumerate(routers):
        for route in iter_route_contexts(router.routes if isinstance(router, APIRouter) else ()):
            for method in sorted(route.methods or ()):
                if (method, route.path) in own:
                    yield f"ROUTERS[{number}]: {method} {route.path} is a route of the service"


def _unguarded(routers: Sequence["APIRouter"]) -> Iterator[str]:
    """Routes that FastAPI would serve without DEPENDENCIES: all but its own."""
    from feedrank.http.web import APIRoute, APIRouter, APIWebSocketRoute

    for number, router in enumerate(routers):
        routes = list(router.routes) if isinstance(router, APIRouter) else []
        for route in routes:  # grows by those of the routers that this one includes
            if included := getattr(route, "original_router", None):
                routes += included.routes
            elif not isinstance(route, APIRoute | APIWebSocketRoute):
                name = getattr(route, "path", type(route).__name__)
                yield f"ROUTERS[{number}]: DEPENDENCIES can't guard {name}, no route of FastAPI's"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _is_store(value: object) -> bool:
    has_both = _has_method(value, "fetch") and hasattr(value, "waits")
    return has_both and not _is_async(value, "connect")


def _is_stage(value: object) -> bool:
    name = getattr(value, "name", None)
    return isinstance(name, str) and name != "" and _has_method(value, "reorder")


def _is_sink(value: object) -> bool:
    """With a `write` of its own, which is called, not awaited: otherwise records would be lost."""
    from feedrank.decisions.sinks import DecisionSink

    is_subclass = DecisionSink in type(value).__mro__  # which has all that the log reads
    has_write = getattr(type(value), "write", None) is not DecisionSink.write
    is_async = _is_async(value, "write") or _is_async(value, "connect")
    return is_subclass and has_write and not is_async


def _is_async(value: object, method: str) -> bool:
    from inspect import iscoroutinefunction

    return iscoroutinefunction(getattr(value, method, None))


def _has_method(value: object, method: str) -> bool:
    return not isinstance(value, type) and callable(getattr(value, method, None))


def _is_router(value: object) -> bool:
    from feedrank.http.web import APIRouter

    return isinstance(value, APIRouter)


def _is_dependency(value: object) -> bool:
    from feedrank.http.web import Depends

    return isinstance(value, Depends)


def _is_middleware(value: object) -> bool:
    from starlette.middleware import Middleware

    return isinstance(value, Middleware)


KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "STAGES": ("a RankingStage: an object with a `name` and `reorder(scored)`", _is_stage),
    "STORES": ("a function from a FeatureStore and a FeatureSpec to a FeatureStore", callable),
    "SINKS": ("a DecisionSink: a subclass's object with `write(record)`, not async", _is_sink),
    "ROUTERS": ("FastAPI's APIRouter", _is_router),
    "DEPENDENCIES": ("FastAPI's Depends(...)", _is_dependency),
    "MIDDLEWARE": ("Starlette's Middleware(...)", _is_middleware),
}
