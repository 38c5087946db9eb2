"""What can go wrong between training and a bundle.

No caller of the API meets one of these, so none has an HTTP status: each text is for whoever ran
the command. What follows the first line is shown as details.

CommandError
├── OptionsError        training options that are out of range
├── TrackingError       MLflow can't be reached, or not be used as configured
├── PromotionError      not a registered version
└── PublishError        a model, a spec or a table that can't be published as it is
    └── SigningError    no signature, or one that doesn't verify

Publishing also raises `SpecError` and `BundleError` of `feedrank.errors`.
"""


class CommandError(Exception):
    """The root: what a command can't do. The text says why, and what helps."""


class OptionsError(CommandError):
    """One or more training options are wrong; the text names all of them."""


class TrackingError(CommandError):
    """MLflow can't be used as configured."""


class PromotionError(CommandError):
    """The URI names no registered version."""


class PublishError(CommandError):
    """A model that can't be published as it is; the text says why and what helps."""


class SigningError(PublishError):
    """A model that can't be signed, or whose signature doesn't verify."""
