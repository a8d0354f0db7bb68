from collections.abc import Callable, Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import soundfile

from ser.data import BadFile, SpeechCorpus, Utterance


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Return a function that writes a 50 ms recording of its own at every path, and returns their root."""

    def make(names: Iterable[str]) -> Path:
        root = tmp_path / "corpus"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(crc32(name.encode())).uniform(-0.5, 0.5, 400)
            soundfile.write(path, noise, 8000, subtype="PCM_16")
        return root

    return make


@pytest.fixture
def parse() -> Callable[[SpeechCorpus, Path], tuple[dict[str, Utterance], dict[str, str]]]:
    """Return a function that parses a tree into utterances and reasons of bad files, by path below the root."""

    def parse(corpus: SpeechCorpus, root: Path) -> tuple[dict[str, Utterance], dict[str, str]]:
        items = list(corpus.utterances(root))
        good = [item for item in items if isinstance(item, Utterance)]
        bad = [item for item in items if isinstance(item, BadFile)]
        return (
            {item.path.relative_to(root).as_posix(): item for item in good},
            {item.path.relative_to(root).as_posix(): item.reason for item in bad},
        )

    return parse
