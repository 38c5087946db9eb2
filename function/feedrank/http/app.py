"""The FastAPI app: our routes, one error translator, and what a team adds."""

from collections.abc import Sequence
from types import MethodType

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from feedrank import __version__
from feedrank.errors import RequestError
from feedrank.http.endpoints import TITLE, Endpoints
from feedrank.http.fast_path import App
from feedrank.http.observer import RouteNote
from feedrank.http.problems import problem
from feedrank.http.routes import INVOCATIONS, PREDICT, Route, routes_of
from feedrank.http.web import APIRouter, Depends, RequestValidationError, ServiceRoute
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats

TRANSLATED = (RequestError, HTTPException, RequestValidationError, Exception)


def create_app(
    settings: Settings,
    slot: ModelSlot,
    ranker: Ranker,
    stats: ContainerStats,
    *,
    routers: Sequence[APIRouter] = (),
    dependencies: Sequence[Depends] = (),
    middleware: Sequence[Middleware] = (),
) -> App:
    """Added routers come after our routes. Dependencies guard both, except for our routes that need
    no credentials. The first middleware is the outermost, and sees everything."""
    app = App(
        title=TITLE,
        version=__version__,
        openapi_url=None,  # a route of our own, as it is for the docs
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host and path
        middleware=[*middleware, Middleware(RouteNote)] if middleware else (),
        exception_handlers=dict.fromkeys(TRANSLATED, problem),
    )
    app.router.route_class = ServiceRoute
    endpoints = Endpoints(settings, slot, ranker, stats)
    sagemaker = settings.sagemaker == "on"
    routes = routes_of(sagemaker=sagemaker)
    for route in routes:
        app.add_api_route(
            route.path,
            MethodType(route.endpoint, endpoints),
            methods=[route.method],
            operation_id=route.id,
            summary=route.operation.summary if route.operation else None,
            include_in_schema=route.operation is not None,
            response_model=None,
            dependencies=() if route.auth == "open" else dependencies,
        )
    for router in routers:
        app.include_router(router, dependencies=dependencies)
    app.openapi = lambda: _document(app, settings, routes)  # type: ignore[method-assign]  # its way
    hot = INVOCATIONS if sagemaker else PREDICT
    app.serve_directly(hot.path, hot.method, endpoints.ranked, lambda: ranker.waits)
    return app


def _document(app: App, settings: Settings, routes: Sequence[Route]) -> dict[str, object]:
    from feedrank.http.openapi import document  # which few containers ever serve

    return document(app, routes, settings.api_auth, settings.max_items)
