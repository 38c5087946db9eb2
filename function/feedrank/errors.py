"""What can go wrong, each with the HTTP status a caller gets for it.

FeedrankError                     500
├── SettingsError                 fails at init, never reaches a caller
├── UnservedEventError            fails the invocation: nobody waits for an answer
├── MalformedEventError           400
├── InvalidRequestError           422
├── RequestTooLargeError          413
├── ModelUnavailableError         503, with Retry-After
│   ├── SpecError                 a feature spec that does not hold together
│   └── BundleError               a bundle that is missing, broken or not what it says
├── DeadlineExceededError         504
├── ScoringError                  500
└── StageError                    500
"""


class FeedrankError(Exception):
    """The root. `title` is shown to callers; the exception's own text is only logged."""

    status = 500
    title = "Internal server error"


class SettingsError(FeedrankError):
    """One or more environment variables are missing or wrong; the text names all of them."""


class UnservedEventError(FeedrankError):
    """Not an event that the function serves."""

    def __init__(self) -> None:
        super().__init__(
            "this event is not served: send one of an HTTP API, a REST API, a Function URL or a "
            'load balancer, or a ping, which is a schedule\'s event or {"warm": true}'
        )


class MalformedEventError(FeedrankError):
    """An API's event that no request can be made of."""

    status = 400
    title = "Request could not be read"


class InvalidRequestError(FeedrankError):
    """The request is no JSON of the schema's, or the model's feature spec can't use it.

    Unlike the other errors, its text is shown to the caller: it names a field, never a value.
    """

    status = 422
    title = "Request is not valid"


class RequestTooLargeError(FeedrankError):
    status = 413
    title = "Request body is too large"


class ModelUnavailableError(FeedrankError):
    """No model serves at the moment."""

    status = 503
    title = "No model is available"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SpecError(ModelUnavailableError):
    """The feature spec does not hold together; the text names the place in it."""


class BundleError(ModelUnavailableError):
    """The text names the bundle's file and what is wrong with it."""


class DeadlineExceededError(FeedrankError):
    status = 504
    title = "Request ran out of time"


class ScoringError(FeedrankError):
    """The engine's answer is not one score in [0, 1] per item."""


class StageError(FeedrankError):
    """A stage after scoring failed, or gave positions that it was not given."""
