"""A model and tables of a shop, made as somebody would who has never heard of this project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from feedmodel.training.runs import tracked_run

SHOP_SPEC: dict[str, Any] = {
    "inputs": [
        {
            "name": "x",
            "features": [
                {"name": "price", "source": "item", "default": 9.5},
                {"name": "hour", "source": "context", "expression": "hour"},
                {"name": "age", "source": "user", "default": 30},
                {"name": "basket", "source": "context", "expression": "number(basket)"},
            ],
        }
    ]
}


class Shop(nn.Module):
    """Four features of a shop, of which the demo has none; ends in probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(4, 1)
        with torch.no_grad():
            self.weights.weight.copy_(torch.tensor([[-0.2, 0.05, 0.01, 0.3]]))
            self.weights.bias.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        return self.weights(x).squeeze(-1)


@dataclass(frozen=True)
class Registry:
    """Logs models as somebody who has never heard of this project would."""

    uri: str

    def log(self, model: nn.Module, rows: int = 6, width: int = 4, **how: Any) -> str:
        how = {"serialization_format": "pt2", **how}
        shape = (-1 if rows > 1 else rows, width)
        signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), shape, "x")]))
        with tracked_run(self.uri, "shop", "a run"):
            return mlflow.pytorch.log_model(
                model.eval(),
                name="shop",
                signature=signature,
                input_example=np.zeros((rows, width), np.float32),
                pip_requirements=["torch"],
                **how,
            ).model_uri

    def artifact(self, model_uri: str) -> Path:
        """The directory that MLflow keeps a logged model in."""
        client = mlflow.MlflowClient(self.uri)
        model = client.get_logged_model(model_uri.removeprefix("models:/"))
        return Path(model.artifact_location.removeprefix("file://"))
