"""What can go wrong on the way from MLflow to a bundle, each text made to be read by a person."""

from feedrank.errors import FeedrankError


class PromotionError(FeedrankError):
    """What was named is no registered version."""


class PublishError(FeedrankError):
    """A model that can't be published as it is; the text says why and what helps."""


class SigningError(PublishError):
    """A model that can't be signed, or whose signature doesn't verify."""
