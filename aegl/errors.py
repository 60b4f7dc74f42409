"""The errors a user can cause or must hear of. The command line turns each into one message and an exit code.

Exit codes: 0 success, 1 something failed while running (:class:`RunError`), 2 a wrong input (all other children), and
128 + n after signal n (130 for Ctrl-C), what was trained being saved. A process that hung and was ended by its watchdog
(:mod:`aegl.engine.watchdog`) has 75.
"""


class AeglError(Exception):
    """Base of every error aegl raises on purpose.

    The message names the bad value, where it stands, and what to do about it; it is shown to the user as it is.
    """

    exit_code = 2


class ConfigError(AeglError):
    """A key, a value or a combination of them that cannot be used. May hold several problems, one per line."""


class DataError(AeglError):
    """An annotation file, an image, or a results file that is missing, broken or inconsistent."""


class CheckpointError(AeglError):
    """A checkpoint or weights file that is missing, is no checkpoint, or does not fit the model."""


class ExportError(AeglError):
    """A model that cannot be exported as asked for, or an exported file that cannot be run as asked for."""


class RunError(AeglError):
    """A run that was asked for correctly but failed on the way (diverged loss, full disk, lost process)."""

    exit_code = 1
