"""Source-filter synthesis of short speech-like utterances.

A glottal pulse train with the emotion's prosody (level, accents, declination, final tone, jitter, shimmer, spectral
tilt, breath) excites a cascade of five formant resonators that move through the phones of a sentence; friction noise is
added beside it. The structure is that of Klatt (1980), "Software for a cascade/parallel formant synthesizer", J.
Acoust. Soc. Am. 67; the pulse is that of Rosenberg (1971), type C; vowel formants are the male means of Peterson &
Barney (1952). The directions in which the emotions differ follow the review of Scherer (2003), "Vocal communication of
emotion", Speech Communication 40. Nothing was fitted to a recording: scores say nothing about human speech.
"""

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter, sosfilt

Array = npt.NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
HOP = 80  # samples per control frame: 5 ms, short enough for the formants to glide
SPEECH_S = (0.73, 1.43)  # bounds of the spoken part
SILENCE_S = (0.09, 0.18)  # bounds of the pause at either end; whole files are 0.9 to 1.8 s
LEVEL_DBFS = -25.0  # mean root-mean-square level of a file
UPPER_FORMANTS_HZ = (3500.0, 4500.0)  # F4 and F5 hardly move in speech
BANDWIDTHS_HZ = np.array([80.0, 100.0, 140.0, 250.0, 350.0])


@dataclass(frozen=True)
class Phone:
    """One speech sound: its target formants for a male tract, and what excites them."""

    duration_ms: float
    formants_hz: tuple[float, float, float]
    voicing_db: float = -99.0  # glottal pulses, re a stressed vowel
    breath_db: float = -99.0  # noise at the glottis, through the formants
    friction_db: float = -99.0  # noise at the constriction, past the formants
    friction_hz: float = 0.0  # where that noise is strongest


PHONES = {
    "a": Phone(105, (730, 1090, 2440), 0),
    "e": Phone(95, (530, 1840, 2480), 0),
    "i": Phone(90, (270, 2290, 3010), -2),
    "o": Phone(105, (570, 840, 2410), 0),
    "u": Phone(95, (300, 870, 2240), -2),
    "@": Phone(60, (500, 1500, 2500), -3),
    "m": Phone(65, (250, 1000, 2200), -9),
    "n": Phone(60, (250, 1450, 2300), -9),
    "l": Phone(60, (360, 1000, 2600), -6),
    "r": Phone(60, (400, 1200, 1700), -6),
    "w": Phone(60, (290, 610, 2150), -7),
    "j": Phone(60, (260, 2070, 3020), -7),
    "h": Phone(60, (500, 1500, 2500), breath_db=-14),
    "s": Phone(95, (320, 1650, 2600), friction_db=-13, friction_hz=6000),
    "S": Phone(95, (300, 1840, 2750), friction_db=-11, friction_hz=3200),
    "f": Phone(80, (340, 1100, 2080), friction_db=-24, friction_hz=5000),
    "v": Phone(60, (260, 1100, 2080), -10, friction_db=-30, friction_hz=5000),
    "z": Phone(75, (260, 1650, 2600), -12, friction_db=-19, friction_hz=6000),
    "p": Phone(80, (300, 900, 2300), friction_db=-20, friction_hz=900),
    "t": Phone(75, (300, 1750, 2700), friction_db=-16, friction_hz=4500),
    "k": Phone(80, (300, 1950, 2250), friction_db=-17, friction_hz=1800),
    "b": Phone(60, (230, 900, 2250), -18, friction_db=-28, friction_hz=900),
    "d": Phone(55, (230, 1750, 2650), -18, friction_db=-24, friction_hz=4200),
    "g": Phone(60, (230, 1950, 2250), -18, friction_db=-24, friction_hz=1800),
}
STOPS = frozenset("ptkbdg")  # friction is a burst at the release instead of the whole phone
VOWELS = frozenset("aeiou@")

SENTENCES = (
    "da 'vi so 'lu m@n",
    "fa 'ro te 'ni ka 'lo",
    "w@ 'gi na 'ju z@",
    "mi 'sa b@ lo 'ri t@",
    "'ha l@ So 'ni d@ 'va",
    "pu 'de l@ wa 'mo S@",
)  # syllables; an accented one starts with '


@dataclass(frozen=True)
class Voice:
    """One speaker: what does not depend on the emotion."""

    f0_hz: float  # mean of neutral speech
    tract: float  # formants re the male reference: a shorter tract has higher ones
    rate: float  # re the durations of the phones
    breath_db: float  # added to the breath of the emotion
    level_db: float  # how close the speaker sits to the microphone
    tilt: float  # factor on the corner frequency of the source


@dataclass(frozen=True)
class Style:
    """One manner of speaking: what depends on the emotion."""

    level_st: float  # F0 re the speaker's mean, semitones
    accent_st: float  # height of the accents, semitones
    accent_ms: float  # their breadth
    declination_st: float  # fall of F0 from start to end, semitones
    final_st: float  # movement over the last syllable, semitones
    rate: float  # speaking rate, factor
    accent_db: float  # how much louder an accented syllable is
    fade_db: float  # loss of level from start to end
    log_tilt_hz: float  # natural log of the corner frequency of the source, Hz: low is muffled, high is pressed
    open_quotient: float  # part of the cycle in which the glottis is open
    jitter: float  # standard deviation of the period, relative
    shimmer: float  # standard deviation of the amplitude of a pulse, relative
    breath_db: float  # aspiration noise re the voice


STYLES = {
    "anger": Style(3.5, 4.0, 50, 3.0, -4.0, 1.03, 5.5, 1.5, np.log(5500), 0.45, 0.022, 0.12, -32),
    "happiness": Style(5.5, 7.0, 95, 0.0, 4.0, 1.02, 4.0, 2.0, np.log(2000), 0.58, 0.007, 0.05, -24),
    "neutral": Style(0.0, 2.2, 75, 2.0, -1.5, 1.00, 4.0, 2.5, np.log(1250), 0.60, 0.005, 0.04, -32),
    "sadness": Style(-1.5, 0.8, 110, 2.5, -1.0, 0.98, 2.5, 4.0, np.log(380), 0.72, 0.016, 0.09, -15),
}
# Spread of a style from one utterance to the next, in the same order and units.
SPREAD = Style(0.8, 0.7, 10, 0.8, 1.0, 0.11, 2.0, 2.0, 0.13, 0.02, 0.002, 0.01, 1.5)
# No voice goes beyond these.
LOWEST = Style(-4, 0, 40, -3, -6, 0.7, 0, -2, np.log(300), 0.40, 0.002, 0.02, -40)
HIGHEST = Style(9, 9, 150, 6, 6, 1.3, 12, 10, np.log(6000), 0.80, 0.040, 0.20, -12)
CONFUSABLE = {"anger": "happiness", "happiness": "anger", "neutral": "sadness", "sadness": "neutral"}


@dataclass(frozen=True)
class _Score:
    """A sentence in time: P phones over T control frames of `HOP` samples."""

    phones: str
    frames: npt.NDArray[np.int64]  # (P,) duration of each phone
    accented: npt.NDArray[np.bool_]  # (P,) the vowels of accented syllables

    def track(self, attribute: str, blur: float) -> Array:
        """Hold a value of each phone, then let neighbours run into each other over `blur` frames: (T,) or (T, K)."""
        values = np.array([getattr(PHONES[phone], attribute) for phone in self.phones], dtype=np.float64)
        held = np.repeat(values, self.frames, axis=0)
        return np.asarray(gaussian_filter1d(held, blur, axis=0, mode="nearest"))


def utterance(voice: Voice, sentence: str, emotion: str, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Speak one sentence.

    Args:
        voice: The speaker.
        sentence: Syllables of `PHONES` divided by spaces, an accented one led by an apostrophe.
        emotion: A key of `STYLES`.
        rng: Source of everything that varies between two utterances of the same sentence.

    Returns:
        (N,) 16-bit samples at `SAMPLE_RATE_HZ`, 0.9 to 1.8 s, with a pause at either end.
    """
    style = _draw_style(emotion, rng)
    score = _time(voice, sentence, style, rng)
    f0_hz, gain_db = _prosody(voice, style, score, rng)
    voiced = _resonate(_source(voice, style, score, f0_hz, gain_db, rng), voice, score)
    return _record(voiced / np.max(np.abs(voiced)) + _friction(score, gain_db, rng), voice, rng)


def _draw_style(emotion: str, rng: np.random.Generator) -> Style:
    """Draw a style at random, mixed with that of a similar emotion."""
    own, other, neutral = (np.array(astuple(STYLES[e])) for e in (emotion, CONFUSABLE[emotion], "neutral"))
    blend = min(abs(rng.normal(0.0, 0.06)), 0.4)
    strength = np.clip(rng.normal(1.0, 0.12), 0.6, 1.4)
    mean = neutral + strength * ((1 - blend) * own + blend * other - neutral)
    drawn = mean + np.array(astuple(SPREAD)) * rng.standard_normal(len(mean))
    return Style(*np.clip(drawn, astuple(LOWEST), astuple(HIGHEST)))


def _time(voice: Voice, sentence: str, style: Style, rng: np.random.Generator) -> _Score:
    """Give each phone its duration."""
    syllables = sentence.split()
    phones = "".join(syllable.lstrip("'") for syllable in syllables)
    accented = np.array([s[0] == "'" and p in VOWELS for s in syllables for p in s.lstrip("'")])
    seconds = np.array([PHONES[phone].duration_ms for phone in phones]) / 1000
    seconds *= rng.lognormal(0.0, 0.12, len(phones)) * np.where(accented, 1.25, 1.0)
    seconds[-1] *= 1.4  # the end of a phrase is drawn out
    seconds /= voice.rate * style.rate
    seconds *= np.clip(seconds.sum(), *SPEECH_S) / seconds.sum()
    ends = np.round(np.cumsum([0, *seconds]) * SAMPLE_RATE_HZ / HOP)
    return _Score(phones, np.diff(ends).astype(np.int64), accented)


def _prosody(voice: Voice, style: Style, score: _Score, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw F0 in Hz and gain in dB per control frame: (T,) each."""
    ends = np.cumsum(score.frames)
    time = np.arange(ends[-1])
    position = time / ends[-1]
    semitones = style.level_st + style.declination_st * (0.5 - position)
    gain_db = -style.fade_db * position
    breadth = style.accent_ms / 1000 * SAMPLE_RATE_HZ / HOP
    for phone in np.flatnonzero(score.accented):
        centre = ends[phone] - score.frames[phone] / 2 + rng.normal(0.0, 2.0)
        bump = np.exp(-0.5 * ((time - centre) / breadth) ** 2)
        semitones += style.accent_st * rng.uniform(0.7, 1.3) * bump
        gain_db += style.accent_db * rng.uniform(0.7, 1.3) * bump
    semitones += style.final_st * np.clip((time - (ends[-1] - 36)) / 36, 0, 1)  # over the last 180 ms
    wander = gaussian_filter1d(rng.standard_normal(ends[-1]), 8.0)
    semitones += 0.4 * wander / wander.std()
    return voice.f0_hz * 2 ** (semitones / 12), gain_db


def _source(voice: Voice, style: Style, score: _Score, f0_hz: Array, gain_db: Array, rng: np.random.Generator) -> Array:
    """Excite the tract: glottal pulses and the breath between them, (N,), N = T * HOP."""
    f0 = _per_sample(f0_hz)
    cycle = np.cumsum(f0 / SAMPLE_RATE_HZ).astype(np.int64)
    period = 1 + style.jitter * rng.standard_normal(cycle[-1] + 2)
    phase = np.cumsum(f0 * period[cycle] / SAMPLE_RATE_HZ)
    height = 1 + style.shimmer * rng.standard_normal(int(phase[-1]) + 2)
    pulse = height[phase.astype(np.int64)] * _rosenberg(phase % 1.0, style.open_quotient)
    muffle = np.exp(-2 * np.pi * min(np.exp(style.log_tilt_hz) * voice.tilt, 7000.0) / SAMPLE_RATE_HZ)
    flow = lfilter([1 - muffle], [1, -muffle], pulse)
    voicing = np.diff(flow, prepend=0.0) / np.std(np.diff(flow))  # the lips radiate the derivative
    noise = rng.standard_normal(len(flow)) * (0.4 + 0.6 * (phase % 1.0 < style.open_quotient))
    voiced = _amplitude(score.track("voicing_db", 2.5) + gain_db)
    breathed = voiced * _amplitude(style.breath_db + voice.breath_db)
    breathed += _amplitude(score.track("breath_db", 2.5) + gain_db)
    return np.asarray(voicing * _per_sample(voiced) + noise * _per_sample(breathed))


def _rosenberg(phase: Array, open_quotient: float) -> Array:
    """Return the flow through the glottis at a phase in [0, 1): opens for two thirds of the open time, shuts in one."""
    opening, closing = open_quotient * 2 / 3, open_quotient / 3
    rise = 0.5 * (1 - np.cos(np.pi * phase / opening))
    fall = np.cos(0.5 * np.pi * (phase - opening) / closing)
    return np.asarray(np.where(phase < opening, rise, np.where(phase < open_quotient, fall, 0.0)))


def _resonate(source: Array, voice: Voice, score: _Score) -> Array:
    """Pass (N,) samples through five formants that move from phone to phone."""
    moving = score.track("formants_hz", 4.0)  # (T, 3); 20 ms of blur is coarticulation
    upper = np.broadcast_to(UPPER_FORMANTS_HZ, (len(moving), 2))
    centre_hz = np.minimum(np.hstack([moving, upper]) * voice.tract, 0.47 * SAMPLE_RATE_HZ)  # (T, 5)
    radius = np.exp(-np.pi * BANDWIDTHS_HZ / SAMPLE_RATE_HZ)
    sections = np.zeros((*centre_hz.shape, 6))  # (T, 5, 6): b0 b1 b2 a0 a1 a2
    sections[..., 3] = 1.0
    sections[..., 4] = -2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ)
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(axis=-1)  # unit gain at 0 Hz, as in Klatt's cascade
    state = np.zeros((centre_hz.shape[1], 2))
    out = np.empty_like(source)
    for frame, section in enumerate(sections):
        here = slice(frame * HOP, (frame + 1) * HOP)
        out[here], state = sosfilt(section, source[here], zi=state)
    return out


def _friction(score: _Score, gain_db: Array, rng: np.random.Generator) -> Array:
    """Hiss and burst at the constrictions: (N,), re the peak of the voice."""
    out = np.zeros(len(gain_db) * HOP)
    ends = np.cumsum(score.frames)
    for name, start, end in zip(score.phones, ends - score.frames, ends, strict=True):
        phone = PHONES[name]
        if phone.friction_hz == 0.0:
            continue
        first = max(start, end - 3) if name in STOPS else start  # a stop is silent, then bursts for 15 ms
        noise = rng.standard_normal((end - first) * HOP)
        radius = np.exp(-np.pi * (0.3 * phone.friction_hz + 400) / SAMPLE_RATE_HZ)
        angle = 2 * np.pi * phone.friction_hz / SAMPLE_RATE_HZ
        hiss = lfilter([1, 0, -1], [1, -2 * radius * np.cos(angle), radius**2], noise)
        level = _amplitude(phone.friction_db + gain_db[first:end].mean())
        out[first * HOP : end * HOP] = level * np.hanning(len(hiss)) * hiss / hiss.std()
    return out


def _record(speech: Array, voice: Voice, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Set the utterance in a quiet room, at a level that has nothing to do with the emotion."""
    before, after = (int(s * SAMPLE_RATE_HZ) for s in rng.uniform(*SILENCE_S, size=2))
    fade = np.minimum(1.0, np.arange(len(speech)) / HOP)
    speech = np.pad(speech * fade * fade[::-1], (before, after))
    level_db = LEVEL_DBFS + voice.level_db + rng.uniform(-6.0, 6.0)
    speech *= _amplitude(level_db) / np.sqrt(np.mean(speech**2))
    room = lfilter([1.0], [1.0, -0.9], rng.standard_normal(len(speech)))
    speech += room / room.std() * _amplitude(level_db - rng.uniform(60.0, 70.0))
    speech *= min(1.0, 0.98 / np.max(np.abs(speech)))
    return np.asarray(np.round(speech * 32767)).astype(np.int16)


def _per_sample(frames: Array) -> Array:
    """Interpolate (T,) control frames to (T * HOP,) samples."""
    return np.interp(np.arange(len(frames) * HOP), (np.arange(len(frames)) + 0.5) * HOP, frames)


def _amplitude(decibels: Array | float) -> Array:
    return np.asarray(10 ** (np.asarray(decibels) / 20))
