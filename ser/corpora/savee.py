"""SAVEE, the Surrey audio-visual expressed emotion database."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from ser.corpora.base import BadFile, SpeechCorpus
from ser.corpora.names import named_files
from ser.protocols.splits import Gender, Utterance

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS: dict[str, Gender] = dict.fromkeys(("DC", "JE", "JK", "KL"), "male")
PATTERN = rf"({'|'.join(SPEAKERS)})[/_]({'|'.join(EMOTIONS)})(\d\d)"
FORM = rf"(?:{'|'.join(SPEAKERS)})[/_][^/]*|[a-z]{{1,2}}\d\d"


class SAVEE(SpeechCorpus):
    """SAVEE: four men speak English sentences in seven emotions; 480 utterances."""

    name = "SAVEE"
    licence = "free for research, after registration"
    citation = (
        "S. Haq, P. J. B. Jackson: Multimodal emotion recognition. "
        "In W. Wang (ed.), Machine Audition: Principles, Algorithms and Systems, IGI Global 2010, 398-423."
    )
    homepage = "http://kahlan.eps.surrey.ac.uk/savee"
    layout = "files like AudioData/DC/sa01.wav or DC_sa01.wav"
    published: ClassVar[Mapping[str, int]] = {e: 120 if e == "neutral" else 60 for e in EMOTIONS.values()}
    speakers: ClassVar[Mapping[str, Gender]] = SPEAKERS

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Parse names.

        The sentence is emotion and number ("sa01"): every speaker reads the same text under it. Three texts are common
        to the emotions, but nothing in the names says under which numbers, so they count as different ones.
        """
        for item in named_files(root, PATTERN, FORM, "DC/sa01.wav or DC_sa01.wav"):
            if isinstance(item, BadFile):
                yield item
                continue
            path, match = item
            speaker, prefix, number = match[1].upper(), match[2].lower(), match[3]
            yield Utterance(path, EMOTIONS[prefix], speaker, SPEAKERS[speaker], sentence=prefix + number)
