"""The errors that a user can cause, as a small tree. Errors that only our own code can cause are ``assert`` statements.

::

    HeadwaterError             exit code 1: the input, a table or a service is not in a usable state
    ├── UsageError             exit code 2: a bad argument, config value or input location
    ├── TableError             a table is missing, locked, or has a schema that this release cannot read
    ├── ModelError             no champion, a broken or unsuitable model artifact
    │   └── DivergenceError    a training left the finite numbers
    ├── TrackingError          MLflow cannot be reached or refuses
    ├── BrokerError            Kafka's brokers do not answer or refuse
    ├── RefusedFiles           landing files are left alone; the exit code is that of the first one's error
    ├── UnreadableFile         the bytes of a landing file cannot be read at present
    └── Terminated             exit code 143: SIGTERM reached more than this process

Each carries one sentence that names the file, row or key and says what to do. Jobs print that sentence without a stack trace.
"""


class HeadwaterError(Exception):
    """A problem that the user can fix; ``str(error)`` is the one line to show."""

    exit_code = 1


class UsageError(HeadwaterError):
    """A wrong flag, config key, config value or input location."""

    exit_code = 2


class TableError(HeadwaterError):
    """A Delta table is missing, busy, or has another schema than this release reads."""


class ModelError(HeadwaterError):
    """There is no model to use, or its artifact is damaged or does not fit the tables."""


class DivergenceError(ModelError):
    """The loss or the gradient of a training is no longer finite; on the same events it would happen again."""


class TrackingError(HeadwaterError):
    """The MLflow server or store did not answer."""


class BrokerError(HeadwaterError):
    """The brokers of a topic did not answer."""


class UnreadableFile(HeadwaterError):
    """A landing file cannot be opened or read at present, which says nothing about its content."""


class RefusedFiles(HeadwaterError):
    """Landing files that do not fit their sources or cannot be read: the error of each, by path, at least one. The line is the
    first one's."""

    def __init__(self, errors: dict[str, HeadwaterError]) -> None:
        first = next(iter(errors.values()))
        super().__init__(str(first))
        self.errors = errors
        self.exit_code = first.exit_code


class Terminated(HeadwaterError):
    """SIGTERM also reached Java, in the middle of a round."""

    exit_code = 143
