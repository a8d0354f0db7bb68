"""CASIA, the Chinese emotional corpus of the Institute of Automation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ser.corpora.names import NamedCorpus
from ser.protocols.splits import Gender, Utterance

EMOTIONS = {
    "angry": "anger",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
GENDERS: dict[str, Gender] = {
    "liuchanhg": "female",
    "wangzhe": "male",
    "zhaoquanyin": "female",
    "ZhaoZuoxiang": "male",
}
SPEAKERS = {speaker.lower(): speaker for speaker in GENDERS}


class CASIA(NamedCorpus):
    """CASIA, the public subset: four speakers read 50 Mandarin texts in six emotions; 1200 utterances.

    The full corpus (9600 utterances) is named alike, and is read as well.
    """

    name = "CASIA"
    licence = "by agreement with the Chinese Linguistic Data Consortium"
    citation = (
        "J. Tao, F. Liu, M. Zhang, H. Jia: Design of speech corpus for Mandarin text to speech. "
        "The Blizzard Challenge 2008 Workshop."
    )
    homepage = "http://www.chineseldc.org"
    layout = "files like liuchanhg/angry/201.wav"
    pattern = rf"({'|'.join(SPEAKERS)})/({'|'.join(EMOTIONS)})/(\d\d\d)"
    form = rf"(?:{'|'.join(SPEAKERS)})/.*|[^/]+/(?:{'|'.join(EMOTIONS)})/[^/]*"
    example = "liuchanhg/angry/201.wav"
    published: ClassVar[Mapping[str, int]] = dict.fromkeys(EMOTIONS.values(), 200)
    speakers: ClassVar[Mapping[str, Gender]] = GENDERS

    def parse(self, path: Path, groups: Sequence[str]) -> Utterance:
        """Parse a path; copies differ in the case of their folders."""
        speaker, emotion = SPEAKERS[groups[0].lower()], EMOTIONS[groups[1].lower()]
        return Utterance(path, emotion, speaker, GENDERS[speaker], sentence=groups[2])
