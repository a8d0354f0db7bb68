"""The parser of verbs that have a few options of their own; it loads at once, unlike that of Lightning's verbs."""

import argparse
import re
from typing import NoReturn

from ser.errors import UserError
from ser.settings.names import meant


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which refuses abbreviated options and raises instead of exiting."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"ser {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Report a mistake.

        Raises:
            UserError: Always.
        """
        if found := re.match(r"unrecognized arguments: (-[^\s=]+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            message = f"There is no option {found[1]!r}.{meant(found[1], options)}"
            raise UserError(f"{message} See {self.prog} --help.")
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help.")
