"""What corpora of the user's own have in common: a name that the user gives, or that they take from where they lie."""

from typing import ClassVar

from ser.corpora.base import SpeechCorpus
from ser.protocols.history import Identity
from ser.settings.recipe import digest


class OwnCorpus(SpeechCorpus):
    """Base class: nobody has published how it is called, and whose voices it holds."""

    licence = "your own"
    citation = "your own"
    speakers: ClassVar = {}
    published: ClassVar = {}

    @property
    def identity(self) -> Identity:
        """Which corpus this is: speakers of one name are the same people here, and where the same name is stated."""
        named = self.stated_name is not None
        origin = self.name if named or self.root is None else f"{self.name}#{digest(str(self.root.resolve()), 8)}"
        return Identity(self.name, origin, type(self).name, named)

    def _default_name(self) -> str:
        if self.root is None:
            return type(self).name
        place = self.root.resolve()
        return place.stem if place.is_file() else place.name
