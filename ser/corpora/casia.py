"""CASIA, the Chinese emotional corpus of the Institute of Automation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from ser.corpora.base import BadFile, SpeechCorpus
from ser.corpora.names import named_files
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
PATTERN = rf"({'|'.join(SPEAKERS)})/({'|'.join(EMOTIONS)})/(\d\d\d)"
FORM = rf"(?:{'|'.join(SPEAKERS)})/.*|[^/]+/(?:{'|'.join(EMOTIONS)})/[^/]*"


class CASIA(SpeechCorpus):
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
    published: ClassVar[Mapping[str, int]] = dict.fromkeys(EMOTIONS.values(), 200)
    speakers: ClassVar[Mapping[str, Gender]] = GENDERS

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Parse names; copies differ in the case of their folders."""
        for item in named_files(root, PATTERN, FORM, "liuchanhg/angry/201.wav"):
            if isinstance(item, BadFile):
                yield item
                continue
            path, match = item
            speaker, emotion = SPEAKERS[match[1].lower()], EMOTIONS[match[2].lower()]
            yield Utterance(path, emotion, speaker, GENDERS[speaker], sentence=match[3])
