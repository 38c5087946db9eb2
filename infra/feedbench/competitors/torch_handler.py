"""The model on Lambda the plain way: MLflow loads it, torch runs it, FastAPI behind Mangum."""

import asyncio

from mangum import Mangum

from feedbench.competitors.candidates import BUNDLE, Candidates
from feedbench.competitors.fastapi_apps import create
from feedbench.competitors.network import Network

asyncio.set_event_loop(asyncio.new_event_loop())
lambda_handler = Mangum(create(Candidates(), Network(BUNDLE).score), lifespan="off")
