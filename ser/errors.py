"""The errors that end the command line with a message instead of a traceback."""


class UserError(Exception):
    """Bad input: the message says what was found, what was expected, and how to mend it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class JobEnded(Exception):
    """The work ended before its time, for no mistake in the input: a process was lost, say, or training diverged.

    Args:
        message: What happened, and how to go on.
        code: Exit code of the command line.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def user_error_behind(error: BaseException | None) -> UserError | None:
    """Return the bad input that caused an error, if that did; jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error
