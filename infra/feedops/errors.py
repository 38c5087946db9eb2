"""What can go wrong on the operator's machine, each text made to be read by a person.

OperationError
├── EmulatorMissingError       no Runtime Interface Emulator runs on this platform
├── StartError                 a local service or the function did not start; its log is quoted
├── ListenError                no such host here, or the port is taken
├── ModelMissingError          MLflow has no such model, or a folder is no bundle
├── BuildError                 `sam build` can't run, or failed
├── OverBudgetError            a build is larger than we want it
├── ThrottledError             every execution environment stayed busy
├── MalformedAnswerError       the function returned what no HTTP response can be made of
└── FunctionError              the function failed, as Lambda sees it
    ├── FunctionTimeoutError
    └── EnvironmentLostError   the environment went away under the invocation
"""

from collections.abc import Sequence

from feedrank.errors import FeedrankError


class OperationError(FeedrankError):
    """The root of this package's errors."""


class EmulatorMissingError(OperationError):
    pass


class StartError(OperationError):
    pass


class ListenError(OperationError):
    pass


class ModelMissingError(OperationError):
    pass


class BuildError(OperationError):
    pass


class OverBudgetError(OperationError):
    pass


class ThrottledError(OperationError):
    pass


class MalformedAnswerError(OperationError):
    pass


class FunctionError(OperationError):
    """`kind` is Lambda's errorType, such as ValueError or Runtime.ExitError."""

    def __init__(self, kind: str, message: str, stack: Sequence[str] = ()) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.stack = stack


class FunctionTimeoutError(FunctionError):
    pass


class EnvironmentLostError(FunctionError):
    pass
