"""What every system trains with, as the command line reads its config, against the tables of the papers' reference.

`PLAIN` is what `configs/<system>.yaml` comes to, `PAPER` what `configs/paper/<system>.yaml` changes of it. Where the
repaired form takes something else than the paper, the value stands in `PLAIN` and the paper's in `PAPER`.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ser.cli.crossval import PlanningCLI
from ser.cli.fit import prepared
from ser.settings.class_paths import describe

CONFIGS = Path(__file__).parents[1] / "configs"
Settings = dict[str, Any]  # what is written with dots on the command line, and its value


def within(prefix: str, **values: Any) -> Settings:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def data(**values: Any) -> Settings:
    return within("data.init_args", **values)


def preprocess(**values: Any) -> Settings:
    return within("data.init_args.preprocess", **values)


def features(kind: str, /, **values: Any) -> Settings:
    return data(**{"features.class_path": f"ser.data.{kind}"}) | within("data.init_args.features.init_args", **values)


def augment(copies: list[tuple[str, Settings]]) -> Settings:
    settings = data(**{"augment.class_path": "ser.data.Augment", "augment.init_args.online": None})
    for number, (kind, arguments) in enumerate(copies):
        copy = f"data.init_args.augment.init_args.copies.{number}"
        settings |= {f"{copy}.class_path": kind} | within(f"{copy}.init_args", p=1.0, **arguments)
    return settings


def net(**values: Any) -> Settings:
    return within("model.net.init_args", **values)


def optimizer(kind: str, lr: float, **values: Any) -> Settings:
    plain = within("optimizer.init_args", lr=lr, weight_decay=0.0, **values)
    return {"optimizer.class_path": f"torch.optim.{kind}"} | plain


def stopping(monitor: str, patience: int) -> Settings:
    mode = "min" if monitor.endswith("loss") else "max"
    return within("early_stopping", monitor=monitor, patience=patience, mode=mode, min_delta=0.0)


def checkpoint(monitor: str) -> Settings:
    mode = "min" if monitor.endswith("loss") else "max"
    return within("checkpoint", monitor=monitor, mode=mode, save_top_k=1) | {"test_checkpoint": "best"}


# Design, decisions 6 and 7: speaker-disjoint, and the checkpoint by validation UAR.
REPAIRED = (
    data(protocol=None, augment=None, sampling="shuffle")
    | preprocess(top_db=60.0, offset_s=0.0, pad_waveform=False, wiener=False, waveform_norm="none", segment_hop_s=None)
    | within(
        "model",
        normalize="bin",
        pad_before_norm=False,
        segment_scores="mean",
        class_weights="none",
        spec_augment=None,
        mixup=0.0,
    )
    | within("trainer", max_epochs=100, max_steps=-1, gradient_clip_val=None, accumulate_grad_batches=1)
    | checkpoint("val/uar")
    | stopping("val/uar", 15)
    | {"lr_scheduler": None}
)
# Section 1.2: Adam's and RMSprop's constants, and the learning rate's decay per step, of Keras.
KERAS_ADAM = {"eps": 1e-7, "betas": [0.9, 0.999]}
KERAS_RMSPROP = {"eps": 1e-7, "alpha": 0.9, "momentum": 0.0, "centered": False}
LEGACY_DECAY = {
    "lr_scheduler.class_path": "ser.training.InverseTimeDecay",
    "lr_scheduler.init_args.decay": 1e-6,
    "model.lr_scheduler_interval": "step",
}
# Section 2.
FE_ACRNN = preprocess(pre_emphasis=0.97, duration_s=3.0) | features(
    "LogMel",
    **{"sample_rate_hz": 16_000, "window": "hamming", "window_ms": 25.0, "hop_ms": 10.0, "n_fft": 512, "n_mels": 40},
    **{"mel_scale": "htk", "center": False, "scale": "ln", "deltas": 2, "top_db": None},
)
LIBROSA = {"window": "hann", "window_ms": None, "center": True, "top_db": 80.0, "n_mels": 128}
FE_001_2D = preprocess(duration_s=8.0, pre_emphasis=0.0) | features(
    "LogMel", sample_rate_hz=16_000, n_fft=2048, hop_ms=None, mel_scale="slaney", scale="db", deltas=0, **LIBROSA
)
FE_001_TD = preprocess(duration_s=3.5, pre_emphasis=0.0) | features(
    "LogMel", sample_rate_hz=16_000, n_fft=512, hop_ms=16.0, mel_scale="slaney", scale="db_of_max", deltas=0, **LIBROSA
)
FE_001_RAW = preprocess(duration_s=1.0, segment_hop_s=0.5, waveform_norm="rms", pre_emphasis=0.0) | features(
    "Waveform", sample_rate_hz=16_000
)
FE_002_LM = FE_ACRNN | features("LogMel", deltas=0)
FE_003 = (
    preprocess(duration_s=2.5, pre_emphasis=0.0)
    | features("MFCC", n_mfcc=13, drop_first=True, reduce="none", deltas=0)
    | within(
        "data.init_args.features.init_args.log_mel.init_args",
        **{"sample_rate_hz": 44_100, "n_fft": 2048, "hop_ms": None, "mel_scale": "slaney", "scale": "db", **LIBROSA},
    )
)
FE_004 = preprocess(duration_s=3.0, wiener=True, pre_emphasis=0.0) | features(
    "LogMel", sample_rate_hz=44_100, n_fft=2048, hop_ms=None, mel_scale="htk", scale="db", deltas=0, **LIBROSA
)
RAW = preprocess(duration_s=3.0, pre_emphasis=0.0) | features("Waveform", sample_rate_hz=16_000)
COPIES = [  # section 7.4
    ("ser.data.PeakNoise", {"max_share": 0.1}),
    ("audiomentations.TimeStretch", {"min_rate": 1.1, "max_rate": 1.1, "leave_length_unchanged": False}),
    ("audiomentations.TimeStretch", {"min_rate": 0.8, "max_rate": 0.8, "leave_length_unchanged": False}),
    ("audiomentations.PitchShift", {"min_semitones": 1.5, "max_semitones": 1.5}),
]
SHAPES = {  # section 2, the output for the fixed length
    **dict.fromkeys(["cornn", "cornn_no_conformer", "cornn_no_bilstm", "acrnn"], (3, 40, 300)),
    "raw_crnn": (1, 48_000),
    "cnn2d_lstm": (1, 128, 251),
    **dict.fromkeys(["td_cnn2d_lstm", "td_cnn2d_bilstm"], (1, 128, 219)),
    **dict.fromkeys(["cnn1d_lstm", "cnn1d_bilstm"], (1, 16_000)),
    **dict.fromkeys(["dycnn_bilstm", "dycnn_lstm", "cnn_bilstm", "cnn_lstm"], (1, 40, 300)),
    **dict.fromkeys(["rescnn1d", "rescnn1d_no_residual"], (1, 12, 216)),
    **dict.fromkeys(["crnn_mlflb", "crnn_mlflb_augmented", "lflb_baseline"], (1, 128, 259)),
}
# Sections 3 to 7 and the table of section 9.
CORNN = FE_ACRNN | optimizer("Adam", 1e-3, eps=1e-8) | data(batch_size=40) | net(dropout=0.2)
ACRNN = FE_ACRNN | optimizer("Adam", 1e-4, eps=1e-8) | data(batch_size=40) | net(norm_momentum=0.1)
RAW_CRNN = (
    RAW
    | optimizer("RMSprop", 1e-4, **KERAS_RMSPROP)
    | data(batch_size=16)
    | net(dropout=0.3, norm_momentum=0.1)
    | stopping("val/uar", 20)
    | within("model", class_weights="balanced", lr_scheduler_interval="epoch")
    | {"lr_scheduler.class_path": "lightning.pytorch.cli.ReduceLROnPlateau"}
    | within("lr_scheduler.init_args", monitor="val/uar", mode="max", factor=0.5, patience=5)
)
CNN2D = FE_001_2D | optimizer("Adam", 6e-4, **KERAS_ADAM) | data(batch_size=4) | net(norm_momentum=0.1) | LEGACY_DECAY
TD = FE_001_TD | optimizer("Adam", 1e-3, **KERAS_ADAM) | data(batch_size=32) | net(norm_momentum=0.1)
CNN1D = FE_001_RAW | optimizer("Adam", 1e-3, **KERAS_ADAM) | data(batch_size=32) | net(norm_momentum=0.1)
# The preset "stable" of section 5.2, C11; a batch of 200 would leave two steps an epoch.
DYCNN = (
    FE_002_LM
    | optimizer("RMSprop", 1e-3, **KERAS_RMSPROP)
    | data(batch_size=32)
    | net(norm_momentum=0.1)
    | within("trainer", gradient_clip_val=1.0)
)
RESCNN = (
    FE_003 | optimizer("RMSprop", 1e-4, **KERAS_RMSPROP) | data(batch_size=16) | net(norm_momentum=0.1) | LEGACY_DECAY
)
MLFLB = FE_004 | optimizer("Adam", 1e-4, **KERAS_ADAM) | data(batch_size=16) | net(norm_momentum=0.1)
PLAIN: dict[str, Settings] = {
    **dict.fromkeys(["cornn", "cornn_no_conformer", "cornn_no_bilstm"], CORNN),
    "acrnn": ACRNN,
    "raw_crnn": RAW_CRNN,
    "cnn2d_lstm": CNN2D,
    **dict.fromkeys(["td_cnn2d_lstm", "td_cnn2d_bilstm"], TD | net(coverage="uniform", num_blocks=18)),
    **dict.fromkeys(["cnn1d_lstm", "cnn1d_bilstm"], CNN1D),
    **dict.fromkeys(["dycnn_bilstm", "dycnn_lstm", "cnn_bilstm", "cnn_lstm"], DYCNN),
    **dict.fromkeys(["rescnn1d", "rescnn1d_no_residual"], RESCNN | net(output_units=0, dropout=0.2)),
    **dict.fromkeys(["crnn_mlflb", "lflb_baseline"], MLFLB),
    "crnn_mlflb_augmented": MLFLB | augment(COPIES),
}
# Programs that pad the waveform, or what is computed of it, and take the padding for speech; none trims unless said.
NAIVE = net(mask_padding=False, norm_momentum=0.01)
AS_RECORDED = preprocess(top_db=None)
ZERO_PADDED = preprocess(pad_waveform=True)
LAST = {"test_checkpoint": "last"}
CORNN_PAPER = AS_RECORDED | within("trainer", max_epochs=250) | stopping("val/uar", 250) | LAST
DYCNN_PAPER = (
    AS_RECORDED
    | NAIVE
    | within("trainer", max_steps=1000, max_epochs=-1, gradient_clip_val=None)
    | data(batch_size=200)
    | within("optimizer.init_args", lr=1e-2)
    | stopping("val/uar", 1000)
    | LAST
)
TD_PAPER = (
    AS_RECORDED
    | NAIVE
    | ZERO_PADDED
    | preprocess(waveform_norm="peak")
    | net(coverage="first")
    | within("model", normalize="none")
    | within("trainer", max_epochs=500)
    | stopping("val/wa", 20)
    | checkpoint("val/wa")
    | data(**{"protocol.class_path": "ser.data.Tail20"})
)
CNN1D_PAPER = (
    AS_RECORDED
    | NAIVE
    | preprocess(pad_waveform="centred")
    | within("model", normalize="none")
    | within("trainer", max_epochs=1500)
    | stopping("val/loss", 8)
    | checkpoint("val/wa")
    | data(**{"protocol.class_path": "ser.data.ClassOrder641620"})
)
ON_LOSS = stopping("val/loss", 20) | checkpoint("val/loss") | data(**{"protocol.class_path": "ser.data.Random8020"})
RESCNN_PAPER = AS_RECORDED | NAIVE | ZERO_PADDED | ON_LOSS | preprocess(offset_s=0.5) | net(output_units=9)
MLFLB_PAPER = NAIVE | ZERO_PADDED | ON_LOSS | within("trainer", max_epochs=150)  # it trims
PAPER: dict[str, Settings] = {
    **dict.fromkeys(["cornn", "cornn_no_conformer", "cornn_no_bilstm"], CORNN_PAPER),
    "acrnn": AS_RECORDED
    | NAIVE
    | preprocess(segment_hop_s=3.0)
    | within("model", pad_before_norm=True, segment_scores="max"),
    "raw_crnn": AS_RECORDED
    | NAIVE
    | ZERO_PADDED
    | preprocess(waveform_norm="zscore")
    | within("model", normalize="none"),
    "cnn2d_lstm": AS_RECORDED
    | NAIVE
    | ZERO_PADDED
    | within("model", normalize="sign")
    | within("data.init_args.features.init_args", top_db=40, center="reflect")
    | stopping("val/loss", 20)
    | checkpoint("val/wa")
    | data(**{"protocol.class_path": "ser.data.Stratified641620"}),
    **dict.fromkeys(["td_cnn2d_lstm", "td_cnn2d_bilstm"], TD_PAPER),
    **dict.fromkeys(["cnn1d_lstm", "cnn1d_bilstm"], CNN1D_PAPER),
    **dict.fromkeys(["dycnn_bilstm", "dycnn_lstm", "cnn_bilstm", "cnn_lstm"], DYCNN_PAPER),
    **dict.fromkeys(["rescnn1d", "rescnn1d_no_residual"], RESCNN_PAPER),
    **dict.fromkeys(["crnn_mlflb", "crnn_mlflb_augmented", "lflb_baseline"], MLFLB_PAPER),
}
# librosa before 0.10, which the programs used, mirrored the waveform at its ends.
for names, prefix in {
    ("td_cnn2d_lstm", "td_cnn2d_bilstm", "crnn_mlflb", "crnn_mlflb_augmented", "lflb_baseline"): "",
    ("rescnn1d", "rescnn1d_no_residual"): "log_mel.init_args.",
}.items():
    for name in names:
        PAPER[name] = PAPER[name] | {f"data.init_args.features.init_args.{prefix}center": "reflect"}


def laid(*layers: Settings) -> Settings:
    """Lay settings over each other; one that says a part replaces one that says the whole, such as null."""
    settings: Settings = {}
    for layer in layers:
        settings = {
            name: value for name, value in settings.items() if not any(other.startswith(f"{name}.") for other in layer)
        } | layer
    return settings


def look(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[int(part) if part.isdigit() else part]
    return config


def flat(config: Any, prefix: str = "") -> Settings:
    if not isinstance(config, dict):
        return {prefix: config}
    parts = [flat(value, f"{prefix}.{name}" if prefix else name) for name, value in config.items()]
    return {name: value for part in parts for name, value in part.items()}


def composed(*configs: Path) -> tuple[Any, tuple[int, ...]]:
    """Return all settings of a fit with some configs, and the shape of its features."""
    paths = [option for config in configs for option in ("--config", str(config))]
    with prepared():
        cli = PlanningCLI(["fit", *paths, "--trainer.logger", "false", "--trainer.accelerator", "cpu"])
    settings = yaml.safe_load(cli.config_text)
    if settings["data"]["init_args"]["features"] is None:
        settings["data"]["init_args"]["features"] = {
            "class_path": "ser.data.LogMel",
            "init_args": describe(cli.datamodule.front_end.features)["init_args"],
        }
    return settings, tuple(cli.datamodule.feature_shape)


def differing(settings: Any, expected: Settings) -> Settings:
    found = {name: look(settings, name) for name in expected}
    return {name: f"{found[name]}, not {value}" for name, value in expected.items() if found[name] != value}


def test_every_system_has_its_settings():
    systems = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert systems == set(PLAIN) == set(PAPER) == set(SHAPES)


@pytest.mark.parametrize("system", PLAIN)
def test_configs_train_as_the_reference_says(system):
    plain, shape = composed(CONFIGS / f"{system}.yaml")
    assert differing(plain, laid(REPAIRED, PLAIN[system])) == {}
    assert shape == SHAPES[system]

    paper, shape = composed(CONFIGS / f"{system}.yaml", CONFIGS / "paper" / f"{system}.yaml")
    assert differing(paper, laid(REPAIRED, PLAIN[system], PAPER[system])) == {}
    assert shape == SHAPES[system]

    before, after = flat(plain), flat(paper)
    changed = [name for name in after if before.get(name) != after[name]]
    named = [*PAPER[system], "data.init_args.protocol.init_args", "run.system"]
    assert [name for name in changed if not any(f"{name}.".startswith(f"{whole}.") for whole in named)] == []
