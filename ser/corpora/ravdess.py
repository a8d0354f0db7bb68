"""RAVDESS, the Ryerson audio-visual database of emotional speech and song."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ser.corpora.download import Archive
from ser.corpora.names import NamedCorpus
from ser.protocols.splits import Gender, Utterance

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
GENDERS: dict[str, Gender] = {f"{actor:02}": "male" if actor % 2 else "female" for actor in range(1, 25)}
AUDIO_ONLY, SPEECH = "03", "01"


class RAVDESS(NamedCorpus):
    """RAVDESS, speech only: 24 actors speak two English sentences in eight emotions; 1440 utterances."""

    name = "RAVDESS"
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5), e0196391, 2018."
    )
    homepage = "https://doi.org/10.5281/zenodo.1188976"
    archive = Archive(
        "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
        checksum="md5:bc696df654c87fed845eb13823edef8a",
    )
    layout = "files like Actor_12/03-01-06-01-02-01-12.wav"
    pattern = rf"(0[123])-(0[12])-({'|'.join(EMOTIONS)})-(0[12])-(0[12])-(0[12])-({'|'.join(GENDERS)})"
    form = r"Actor_\d+/[^/]*|\d\d(?:-\d\d)+[^/]*"
    example = "03-01-06-01-02-01-12.wav"
    published: ClassVar[Mapping[str, int]] = {e: 96 if e == "neutral" else 192 for e in EMOTIONS.values()}
    speakers: ClassVar[Mapping[str, Gender]] = GENDERS

    def parse(self, path: Path, groups: Sequence[str]) -> Utterance | None:
        """Parse a name; song is left out, and so is the sound of the videos, which repeats the audio files."""
        modality, channel, emotion, _intensity, statement, _repetition, actor = groups
        if (modality, channel) != (AUDIO_ONLY, SPEECH):
            return None
        return Utterance(path, EMOTIONS[emotion], actor, GENDERS[actor], sentence=statement)
