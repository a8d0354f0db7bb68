"""The layer tables of every system: numbers of parameters, and the shapes inside."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import Tensor, nn

import ser.models

CONFIGS = {path.stem: path for path in (Path(__file__).parents[2] / "configs").glob("*.yaml")}


class System(NamedTuple):
    """One system: what its config does not say of the network, numbers of parameters, shapes inside of one utterance.

    `trainable` leaves out the second bias vectors of the LSTMs that Keras does not have; `keras_total` adds the
    statistics of the batch norms, as Keras prints it.
    """

    options: dict[str, Any]
    trainable: int
    keras_total: int
    shapes: dict[str, tuple[int, ...]]


def build(name: str, options: dict[str, Any]) -> nn.Module:
    """Build a system's network from its config, which the name begins with."""
    config = CONFIGS[max((config for config in CONFIGS if name.startswith(config)), key=len)]
    net = yaml.safe_load(config.read_text())["model"]["net"]
    network = getattr(ser.models, net["class_path"].removeprefix("ser.models."))
    return network(**net.get("init_args", {}) | options)


def lflb(*shapes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"convolutions.blocks.{number}": shape for number, shape in enumerate(shapes)}


TD_BLOCKS = lflb((128, 63, 2), (128, 31, 1), (128, 15, 1), (128, 7, 1))
CNN1D_BLOCKS = lflb((64, 1, 4000), (64, 1, 1000), (128, 1, 250), (128, 1, 62))
DYCNN_BLOCKS = lflb((64, 20, 150), (64, 10, 75), (128, 5, 37), (128, 2, 18))
MLFLB_BLOCKS = lflb((64, 64, 129), (64, 16, 32), (128, 4, 8), (128, 1, 2))
RESCNN_SHAPES = {
    "trunk.blocks.0": (256, 1, 216),
    "trunk.blocks.1": (256, 1, 27),
    "trunk.blocks.4": (128, 1, 27),
    "trunk.blocks.5": (128, 1, 3),
    "trunk.blocks.7": (64, 1, 3),
    "residual.9": (64, 1, 3),
}
ACRNN_SHAPES = lflb((128, 10, 150), (256, 10, 150)) | {
    "convolutions.blocks.5": (256, 10, 150),
    "convolutions.blocks.6": (768, 1, 150),
    "lstm": (150, 256),
    "pool": (256,),
    "classifier.0": (64,),
}
SYSTEMS = {
    "cornn": System({}, 1_845_764, 1_846_276, {"bilstm": (300, 256), "conformer.0": (300, 256), "pool": (256,)}),
    "cornn_no_conformer": System({}, 257_028, 257_028, {"pool": (256,)}),
    "cornn_no_bilstm": System({}, 1_620_740, 1_621_252, {"projection": (300, 256)}),
    "raw_crnn": System(
        {},
        1_275_468,
        1_275_772,
        {f"filter_banks.{bank}": (40, 1, 150) for bank in range(3)} | lflb((32, 60, 75)) | {"lstm": (75, 128)},
    ),
    "acrnn": System({}, 7_334_724, 7_336_260, ACRNN_SHAPES),
    "acrnn_pool_2x2": System({"mel_pool": 2}, 9_300_804, 9_302_340, lflb((128, 20, 150))),
    "acrnn_squash": System({"squash_attention": True}, 7_334_726, 7_336_262, {}),
    "acrnn_norm_fc": System({"norm": "fc"}, 7_334_724 - 1_536 + 128, 7_336_260 - 3_072 + 256, {}),
    "cnn2d_lstm": System(
        {},
        280_615,
        281_383,
        lflb((64, 64, 125), (64, 16, 31), (128, 4, 7), (128, 1, 1)) | {"lstm": (1, 32)},
    ),
    "cnn2d_lstm_219": System(
        {"feature_shape": (1, 128, 219)},
        280_615,
        281_383,
        lflb((64, 64, 109), (64, 16, 27), (128, 4, 6), (128, 1, 1)),
    ),
    "cnn2d_lstm_256": System({"lstm_hidden": 256}, 655_815, 656_583, {}),
    "td_cnn2d_lstm": System({}, 252_263, 253_287, {"lstm": (18, 32)}),
    "td_cnn2d_bilstm": System({}, 371_399, 372_423, TD_BLOCKS | {"lstm": (18, 64)}),
    "td_cnn2d_bilstm_all": System({"coverage": "all"}, 371_399, 372_423, TD_BLOCKS | {"lstm": (43, 64)}),
    "cnn1d_lstm": System({}, 137_223, 137_991, CNN1D_BLOCKS | {"lstm": (62, 64)}),
    "cnn1d_bilstm": System({}, 187_079, 187_847, CNN1D_BLOCKS | {"lstm": (62, 128)}),
    "cnn1d_lstm_256": System({"lstm_hidden": 256}, 483_399, 484_167, {}),
    "cnn1d_bilstm_256": System({"lstm_hidden": 256}, 879_431, 880_199, {}),
    "dycnn_bilstm": System({}, 1_439_343, 1_440_111, DYCNN_BLOCKS | {"lstm": (18, 256)}),
    "dycnn_bilstm_6": System({"num_classes": 6}, 1_439_086, 1_439_854, {}),
    "dycnn_bilstm_4": System({"num_classes": 4}, 1_438_572, 1_439_340, {}),
    "dycnn_bilstm_mfcc": System(
        {"feature_shape": (1, 39, 300)}, 1_439_343, 1_440_111, {"convolutions.blocks.3": (128, 2, 18)}
    ),
    "dycnn_lstm": System({}, 1_241_327, 1_242_095, {"lstm": (18, 128)}),
    "cnn_bilstm": System({}, 655_815, 656_583, DYCNN_BLOCKS),
    "cnn_lstm": System({}, 457_799, 458_567, {}),
    "rescnn1d": System({}, 1_962_632, 1_963_400, RESCNN_SHAPES | {"classifier": (8,)}),
    "rescnn1d_savee": System({"num_classes": 7}, 1_962_439, 1_963_207, {}),
    "rescnn1d_9": System({"output_units": 9}, 1_962_825, 1_963_593, {"classifier": (9,)}),
    "rescnn1d_mean_mfcc": System({"feature_shape": (1, 1, 216)}, 1_940_104, 1_940_872, {}),
    "rescnn1d_no_residual": System({}, 1_962_632 - 656_640, 1_963_400 - 656_640, {}),
    "crnn_mlflb": System({}, 824_520, 825_288, MLFLB_BLOCKS | {"lstm": (2, 256)}),
    "crnn_mlflb_emodb": System({"num_classes": 7}, 824_263, 825_031, {}),
    "crnn_mlflb_augmented": System({}, 824_520, 825_288, MLFLB_BLOCKS),
    "lflb_baseline": System({}, 525_000, 525_768, MLFLB_BLOCKS | {"lstm": (2, 256)}),
    "crnn_mlflb_steps": System({"pool_time": (2, 2, 2, 2)}, 824_520, 825_288, {"convolutions.blocks.3": (128, 1, 16)}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_layer_table(name: str) -> None:
    system = SYSTEMS[name]
    net = build(name, system.options).eval()
    trainable = sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
    statistics = sum(buffer.numel() for key, buffer in net.named_buffers() if key.endswith(("_mean", "_var")))
    assert (trainable, trainable + statistics) == (system.trainable, system.keras_total)
    if not system.shapes:
        return
    shapes = {}

    def record(key: str, outputs: Tensor | tuple[Tensor, ...]) -> None:
        shapes[key] = tuple((outputs if isinstance(outputs, Tensor) else outputs[0]).shape[1:])

    for key in system.shapes:
        net.get_submodule(key).register_forward_hook(lambda _, __, outputs, key=key: record(key, outputs))
    with torch.no_grad():
        logits = net(torch.randn(1, *net.feature_shape), torch.tensor([net.feature_shape[-1]]))
    assert shapes == system.shapes
    assert logits.shape == (1, net.num_classes)


def test_table_has_every_system_and_every_network() -> None:
    assert set(CONFIGS) <= set(SYSTEMS)
    assert {type(build(name, {})).__name__ for name in CONFIGS} == set(ser.models.__all__)
