"""The kinds of trouble that a user can mend, each with the exit status of sgdmap itself."""


class SweepError(Exception):
    """A file that is not a result file of sgdmap, or not a whole one, or of another version."""

    exit_status = 2


class FileError(SweepError):
    """A file that the system does not let us read or write."""

    exit_status = 74


class ArgumentError(ValueError):
    """An argument that does not fit the file or the command."""

    exit_status = 2
