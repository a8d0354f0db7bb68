"""The parser of verbs that have a few options of their own; it loads at once, unlike that of Lightning's verbs."""

import argparse
from typing import NoReturn

from ser.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which refuses abbreviated options and raises instead of exiting."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"ser {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Report a mistake.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help.")
