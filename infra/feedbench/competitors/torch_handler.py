"""The model on Lambda the plain way: MLflow loads it, torch runs it, FastAPI behind Mangum."""

import asyncio

from mangum import Mangum

from feedbench.competitors.fastapi_apps import create
from feedbench.competitors.network import torch_ranker

asyncio.set_event_loop(asyncio.new_event_loop())
lambda_handler = Mangum(create(torch_ranker()), lifespan="off")
