"""SAVEE, the Surrey audio-visual expressed emotion database."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ser.corpora.names import NamedCorpus
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


class SAVEE(NamedCorpus):
    """SAVEE: four men speak English sentences in seven emotions; 480 utterances."""

    name = "SAVEE"
    licence = "free for research, after registration"
    citation = (
        "S. Haq, P. J. B. Jackson: Multimodal emotion recognition. "
        "In W. Wang (ed.), Machine Audition: Principles, Algorithms and Systems, IGI Global 2010, 398-423."
    )
    homepage = "http://kahlan.eps.surrey.ac.uk/savee"
    layout = "files like AudioData/DC/sa01.wav or DC_sa01.wav"
    pattern = rf"({'|'.join(SPEAKERS)})[/_]({'|'.join(EMOTIONS)})(\d\d)"
    form = rf"(?:{'|'.join(SPEAKERS)})[/_][^/]*|[a-z]{{1,2}}\d\d"
    example = "DC/sa01.wav or DC_sa01.wav"
    published: ClassVar[Mapping[str, int]] = {e: 120 if e == "neutral" else 60 for e in EMOTIONS.values()}
    speakers: ClassVar[Mapping[str, Gender]] = SPEAKERS

    def parse(self, path: Path, groups: Sequence[str]) -> Utterance:
        """Parse a name.

        The sentence is emotion and number ("sa01"): every speaker reads the same text under it. Three texts are common
        to the emotions, but the names do not say under which numbers, so they count as different sentences.
        """
        speaker, prefix = groups[0].upper(), groups[1].lower()
        return Utterance(path, EMOTIONS[prefix], speaker, SPEAKERS[speaker], sentence=prefix + groups[2])
