"""The one error that a user can mend."""


class UserError(Exception):
    """Bad input: the message says what was found, what was expected, and how to mend it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
