"""The model: data, networks, training, evaluation, export and publishing."""

import os

# Read by MLflow, GitPython and Matplotlib when they are first imported, by whichever module.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # no Git is no reason to complain
os.environ.setdefault("MPLCONFIGDIR", "data/cache/matplotlib")  # its font cache; not in the home
