"""The one error that a user can mend."""


class UserError(Exception):
    """Bad input: the message says what was found, what was expected, and how to mend it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


def user_error_behind(error: BaseException | None) -> UserError | None:
    """Return the bad input that caused an error, if that did; jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error
