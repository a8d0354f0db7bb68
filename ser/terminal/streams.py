"""Output that never ends a run, even without UTF-8, to a closed pipe or on a full disk."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

PLAIN = str.maketrans({"–": "-", "…": "...", "±": "+-", "•": "*", "×": "x"})


class ForgivingStream:
    """Writes to another stream; characters that it cannot encode are replaced, and failed writes are dropped.

    Args:
        stream: The other; None, Python's value for one that was closed before the start, drops everything.

    Attributes:
        failure: Why something was dropped, unless the reader of a pipe has ended (``| head``).
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 - lives as long as this
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write as much as possible; returns the length of the text."""
        with self._forgiven():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.translate(PLAIN).encode(encoding, errors="replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write as much as possible of every line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the buffer."""
        with self._forgiven():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            with contextlib.suppress(OSError):  # the buffer would fail again, at the latest when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[tuple[ForgivingStream, ForgivingStream]]:
    """Keep failed writes to stdout and stderr from raising."""
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
    """Show a stored result; a failure is a warning, and the run continues."""
    with forgiving_output():
        try:
            yield
        except Exception as error:
            print(f"ser: warning: {what} could not be shown ({type(error).__name__}: {error}).", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print plain data; characters that the terminal cannot encode are escaped, as in JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    print(text)
