"""Output that never costs what was computed: a terminal without UTF-8, a closed pipe or a full disk ends no run."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

PLAIN = str.maketrans({"–": "-", "…": "...", "±": "+-", "•": "*", "×": "x"})


class ForgivingStream:
    """Writes to another stream; what that cannot encode is replaced, and what it does not take is dropped.

    Args:
        stream: The other; None, as Python has it where it was closed before the start, drops all.

    Attributes:
        failure: Why something was dropped, if that was not for a reader that has gone (``| head``).
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 - lives as long as this
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of the text."""
        with self._forgiven():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.translate(PLAIN).encode(encoding, errors="replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write what can be written of every line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what is buffered."""
        with self._forgiven():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            with contextlib.suppress(OSError):  # what is buffered would fail again, at the latest when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[tuple[ForgivingStream, ForgivingStream]]:
    """Let nothing fail for what is printed to stdout and stderr."""
    former = sys.stdout, sys.stderr
    out, err = map(ForgivingStream, former)
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = former


@contextlib.contextmanager
def showing(what: str) -> Iterator[None]:
    """Show something that has been computed and kept: if that fails, a warning says so, and the run goes on."""
    with forgiving_output():
        try:
            yield
        except Exception as error:
            print(f"ser: warning: {what} could not be shown ({type(error).__name__}: {error}).", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print plain data; names that the terminal cannot encode are escaped, as JSON does it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    print(text)
