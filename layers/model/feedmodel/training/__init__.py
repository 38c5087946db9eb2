"""What the training of any ranking model needs.

matrix      a model's inputs for past requests, as serving would have built them
unknown     training rows whose user or item is unknown
fit         Adam on clicks, stopped early
evaluation  ranking quality and calibration of scores
runs        the MLflow run, and a model logged so that it can be published
"""
