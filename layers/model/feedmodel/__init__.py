"""The model: data, networks, training, evaluation, export and publishing."""
