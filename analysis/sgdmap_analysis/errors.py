"""The two kinds of trouble that a user can mend, each with the exit status of sgdmap itself."""


class SweepError(Exception):
    """A file that cannot be read, written, or is not a result file of sgdmap."""

    exit_status = 74


class ArgumentError(ValueError):
    """An argument that does not fit the file or the command."""

    exit_status = 2
