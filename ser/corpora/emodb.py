"""EMO-DB, the Berlin database of emotional speech."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ser.corpora.download import Archive
from ser.corpora.names import NamedCorpus
from ser.protocols.splits import Gender, Utterance

# The letter is the initial of the German word: Wut, Langeweile, Ekel, Angst, Freude, neutral, Trauer.
EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
GENDERS: dict[str, Gender] = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}


class EmoDB(NamedCorpus):
    """EMO-DB: ten actors speak ten German sentences in seven emotions; 535 utterances."""

    name = "EMO-DB"
    licence = "freely available"
    citation = (
        "F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss: "
        "A database of German emotional speech. Interspeech 2005, 1517-1520."
    )
    homepage = "http://emodb.bilderbar.info"
    archive = Archive("http://emodb.bilderbar.info/download/download.zip")  # its authors publish no checksum
    layout = "files like 03a01Fa.wav, with or without a wav folder around them"
    pattern = rf"({'|'.join(GENDERS)})([ab]\d\d)([{''.join(EMOTIONS)}])([a-z])"
    form = r"\d\d[a-z]\d\d[^/]*"
    example = "03a01Fa.wav"
    published: ClassVar[Mapping[str, int]] = {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }
    speakers: ClassVar[Mapping[str, Gender]] = GENDERS

    def parse(self, path: Path, groups: Sequence[str]) -> Utterance:
        """Parse a name: characters 0-1 are the speaker, 2-4 the sentence, 5 the emotion, 6 the version."""
        speaker, sentence, letter, _ = groups
        return Utterance(path, EMOTIONS[letter.upper()], speaker, GENDERS[speaker], sentence=sentence.lower())
