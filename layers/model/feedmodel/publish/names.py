"""What MLflow's models, aliases, tags and artifacts are called here."""

import re

REGISTERED = "models:/"
LOGGED_MODEL = "m-"  # how the id of a logged model begins, which need not be registered
PRODUCTION, CANDIDATE = "production", "candidate"  # aliases of a registered model's versions

FEATURES = "features"  # a run's directory of artifacts
SPEC_FILE = "feature_spec.json"  # in it
EXPECTED_FILE = "expected_scores.parquet"  # in it: what the run's own evaluation gave
EXPECTED_TOLERANCE = 1e-5  # in [0, 1]; of scores of any range see `tolerance`
SNAPSHOT_AS_OF = "feedrank.snapshot_as_of"  # a run's tag: the time of its tables, ISO 8601 UTC

# MLflow's own rules, which it would apply only after the training.
REGISTERED_NAME = re.compile(r"[^/:.%\"'@\s]+")
ALIAS = re.compile(r"(?!latest$|v\d+$)[A-Za-z0-9_-]+")
