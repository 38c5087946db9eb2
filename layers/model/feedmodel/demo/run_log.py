"""What MLflow keeps of the demo's training: options, network, curves and quality."""

from collections.abc import Mapping
from dataclasses import asdict

import mlflow
import torch
from mlflow.data.dataset import Dataset
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from torch import nn

from feedmodel.demo.networks import Network
from feedmodel.demo.options import TrainOptions
from feedmodel.publish.names import REGISTERED
from feedmodel.training.fit import Epoch
from feedmodel.training.unknown import SHARE_IN_TRAINING

STARTED_BY = {"mlflow.source.name": "feedrank train"}  # instead of the script's path
DESCRIPTION = (
    "The probability that a user engages with an item of the feed, from features that `feedrank` "
    "looks up. Trained on a synthetic feed; a share of users and items was unknown."
)
OPTIMIZER_PARAMS = ("betas", "eps", "weight_decay")


def run_tags() -> dict[str, str]:
    """The command and the commit of the code, if it is in a repository."""
    commit = get_git_commit(__file__)  # MLflow itself looks beside the script
    return STARTED_BY | ({MLFLOW_GIT_COMMIT: commit} if commit else {})


def log_options(options: TrainOptions) -> None:
    mlflow.log_params({k: v for k, v in asdict(options).items() if k != "tracking_uri"})
    mlflow.log_param("unknown_share", SHARE_IN_TRAINING)


def log_architecture(network: Network, optimizer: torch.optim.Optimizer) -> None:
    """The widths of each part's layers, and the optimiser's defaults."""
    for name, part in network.named_children():
        linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        if linear:
            widths = "-".join(str(layer.out_features) for layer in linear)
            mlflow.log_param(f"layers/{name}", widths)
    dropout = {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)}
    mlflow.log_params(
        {
            "dropout": ", ".join(map(str, sorted(dropout))),
            "weights": sum(tensor.numel() for tensor in network.parameters()),
            "optimizer": type(optimizer).__name__,
            **{f"adam/{name}": optimizer.defaults[name] for name in OPTIMIZER_PARAMS},
        }
    )


def log_epoch(epoch: Epoch) -> None:
    mlflow.log_metrics(
        {
            "train/loss": epoch.train_loss,
            "validation/loss": epoch.validation_loss,
            "validation/auc": epoch.validation_auc,
        },
        step=epoch.number,
    )


def log_quality(metrics: Mapping[str, float], model_uri: str, data: Dataset) -> None:
    """For the run and for its model, as measured on `data`."""
    mlflow.log_metrics(dict(metrics), model_id=model_uri.removeprefix(REGISTERED), dataset=data)
