"""What can go wrong. Errors of a request have the HTTP status of its response, others have none.

FeedrankError
├── SettingsError                 init fails
├── UnservedEventError            the invocation fails: it has no response
└── RequestError                  500
    ├── MalformedEventError       400
    ├── InvalidRequestError       422
    ├── RequestTooLargeError      413
    ├── ModelUnavailableError     503, with Retry-After
    │   ├── SpecError             a feature spec that is not valid
    │   └── BundleError           a bundle that is missing, broken or not the expected one
    ├── DeadlineExceededError     504
    ├── ScoringError              500
    └── StageError                500
"""

from pathlib import PurePath


class FeedrankError(Exception):
    """The root."""


class SettingsError(FeedrankError):
    """One or more environment variables are missing or wrong; the text names all of them."""


class UnservedEventError(FeedrankError):
    """An event that the function doesn't serve."""

    def __init__(self) -> None:
        super().__init__(
            "this event is not served: send one of an HTTP API, a REST API, a Function URL or a "
            'load balancer, or a ping, which is a schedule\'s event or {"warm": true}'
        )


class RequestError(FeedrankError):
    """A request that fails. Its response shows `title`; the exception's own text is only logged."""

    status = 500
    title = "Internal server error"


class MalformedEventError(RequestError):
    """An event of an API that can't be turned into a request."""

    status = 400
    title = "Request could not be read"


class InvalidRequestError(RequestError):
    """The request is not JSON of the schema, or the model's feature spec can't use it.

    Unlike the other errors' texts, this one's is in the response: it names a field, never a value.
    """

    status = 422
    title = "Request is not valid"


class RequestTooLargeError(RequestError):
    status = 413
    title = "Request body is too large"


class ModelUnavailableError(RequestError):
    """No model serves at the moment."""

    status = 503
    title = "No model is available"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SpecError(ModelUnavailableError):
    """The feature spec is not valid; the text names the place in it."""


class BundleError(ModelUnavailableError):
    """The text names the bundle's file and what is wrong with it."""


class DeadlineExceededError(RequestError):
    status = 504
    title = "Request ran out of time"


class ScoringError(RequestError):
    """The engine did not return one score in [0, 1] for each item."""


class StageError(RequestError):
    """A stage after scoring failed, or returned positions that it did not get."""


def reason_of(error: BaseException) -> str:
    """For a log line: the text of an error of ours; of any other its type and place, such as
    `KeyError in extensions.py:33`, since its text may repeat the request."""
    return str(error) if isinstance(error, FeedrankError) else type_and_place(error)


def type_and_place(error: BaseException, file: str = "") -> str:
    """The place is the innermost Python line, or the innermost one in `file`."""
    place, traceback = "", error.__traceback__
    while traceback:
        path = traceback.tb_frame.f_code.co_filename
        if not file or path == file:
            place = f" in {PurePath(path).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return type(error).__name__ + place
