"""What a user can cause, as a small tree; what only we can cause is an ``assert``.

::

    HeadwaterError             exit code 1: the input, the tables or a service are not as they must be
    ├── UsageError             exit code 2: a bad argument, config value or input location
    ├── TableError             a table is missing, locked, or of a schema this release cannot read
    ├── ModelError             no champion, a broken or unsuitable model artifact
    ├── TrackingError          MLflow cannot be reached or refuses
    ├── BrokerError            Kafka's brokers do not answer or refuse
    └── Terminated             exit code 143: SIGTERM came, and not to this process alone

Each carries one sentence that names the file, row or key and says what to do; jobs print it and no stack trace.
"""


class HeadwaterError(Exception):
    """Something the user can mend; ``str(error)`` is the one line to show."""

    exit_code = 1


class UsageError(HeadwaterError):
    """A wrong flag, config key, config value or input location."""

    exit_code = 2


class TableError(HeadwaterError):
    """A Delta table is missing, busy, or not of the schema that this release reads."""


class ModelError(HeadwaterError):
    """There is no model to use, or its artifact is damaged or does not fit the tables."""


class TrackingError(HeadwaterError):
    """The MLflow server or store did not answer."""


class BrokerError(HeadwaterError):
    """The brokers of a topic did not answer."""


class Terminated(HeadwaterError):
    """SIGTERM reached Java too, in the middle of a round."""

    exit_code = 143
