"""From a model in MLflow to a bundle."""
