"""Data from elsewhere do not decide which code runs."""

import importlib
import io
import pickle
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import soundfile
import torch

from ser.cli import main
from ser.data import LogMel
from ser.errors import UserError
from ser.settings.class_paths import describe, public_path
from ser.settings.registry import check_classes, registered
from ser.training.task import EmotionClassifier

CONFIG = str(Path(__file__).parents[1] / "configs/cornn_no_conformer.yaml")
SMALL = ["--model.net.lstm_hidden", "2", "--data.features.n_mels", "4", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cache):
    root = tmp_path_factory.mktemp("fitted")
    options = ["--trainer.logger", "false", "--run.root", str(root), "--data.cache_dir", str(cache)]
    assert main(["fit", "--config", CONFIG, *SMALL, *options]) == 0
    return root / "cornn_no_conformer-synthetic/fold0-seed1/checkpoints/best.ckpt"


def popen(trace):
    return {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(trace)]}}


def set_net(c, evil):
    c["hyper_parameters"]["net"] = evil


def nested_net(c, evil):
    observer = {"class_path": "torch.ao.quantization.observer.MinMaxObserver", "init_args": {"quant_min": evil}}
    c["hyper_parameters"]["net"] = observer


def net_argument(c, evil):
    c["hyper_parameters"]["net"]["init_args"]["dropout"] = evil


def net_argument_as_text(c, evil):
    c["hyper_parameters"]["net"]["init_args"]["dropout"] = str(evil)


def net_extra_argument(c, evil):
    c["hyper_parameters"]["net"]["dict_kwargs"] = {"more": [{"deep": evil}]}


def dotted_key(c, evil):
    c["hyper_parameters"]["net.class_path"] = evil["class_path"]


def optimizer(c, evil):
    c["hyper_parameters"]["optimizer"]["init_args"]["lr"] = evil


def schedule(c, evil):
    path = "torch.optim.lr_scheduler.LambdaLR"
    c["hyper_parameters"]["lr_scheduler"] = {"class_path": path, "init_args": {"lr_lambda": "os.system"}}


def another_setting(c, evil):
    c["hyper_parameters"]["mixup"] = evil


def features(c, evil):
    c["front_end"]["features"] = evil


def features_argument(c, evil):
    c["front_end"]["features"]["init_args"]["window"] = evil


def preprocess(c, evil):
    c["front_end"]["preprocess"]["top_db"] = evil


def protocol(c, evil):
    c["history"][-1]["protocol"] = evil


def protocol_argument(c, evil):
    path = "ser.data.FixedSpeakers"
    c["history"][-1]["protocol"] = {"class_path": path, "init_args": {"val": [evil], "test": ["b"]}}


def front_end_file(c, evil):
    c["front_end"]["features"] = "evil.yaml"


ATTACKS = [value for value in list(vars().values()) if callable(value) and getattr(value, "__code__", None)]
ATTACKS = [attack for attack in ATTACKS if attack.__code__.co_varnames[:2] == ("c", "evil")]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_checkpoint_makes_nothing_but_what_is_registered(attack, checkpoint, tmp_path, cache, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "PWNED"
    evil = torch.load(checkpoint, weights_only=True)
    attack(evil, popen(trace))
    torch.save(evil, "evil.ckpt")
    soundfile.write("a.wav", torch.randn(16000).numpy() / 10, 16000)
    Path("evil.yaml").write_text(f"class_path: subprocess.Popen\ninit_args: {{args: [touch, {trace}]}}\n")

    with pytest.raises(UserError, match="must not decide which code runs"):
        EmotionClassifier.load_from_checkpoint("evil.ckpt")
    with pytest.raises(UserError, match="must not decide which code runs"):
        EmotionClassifier.load_from_checkpoint(io.BytesIO(Path("evil.ckpt").read_bytes()))
    common = ["--ckpt_path", "evil.ckpt", "--trainer.logger", "false", "--data.cache_dir", str(cache)]
    for verb, data in (("predict", ["--data.root", "a.wav"]), ("test", ["--data", "Synthetic"])):
        assert main([verb, *common, *data]) == 2
        said = capsys.readouterr().err
        assert "must not decide which code runs" in said
        assert "Traceback" not in said
    assert main(["fit", "--config", CONFIG, *SMALL, *common]) == 2
    assert not trace.exists()
    assert not Path("runs").exists()


def test_a_pickle_is_not_unpickled(checkpoint, tmp_path, capsys):
    trace = tmp_path / "PWNED"

    class Evil:
        def __reduce__(self):
            return open, (str(trace), "w")

    for name, content in {"a.ckpt": pickle.dumps(Evil())}.items():
        (tmp_path / name).write_bytes(content)
    torch.save({**torch.load(checkpoint, weights_only=True), "more": Evil()}, tmp_path / "b.ckpt")
    for name in ("a.ckpt", "b.ckpt"):
        for more in ([], ["--weights_only", "false"]):
            options = ["--ckpt_path", str(tmp_path / name), "--data.root", str(tmp_path), *more]
            assert main(["predict", *options]) == 2
        assert "is not a checkpoint of ser" in capsys.readouterr().err
        with pytest.raises(pickle.UnpicklingError):
            EmotionClassifier.load_from_checkpoint(tmp_path / name, weights_only=False)
    assert not trace.exists()


def test_a_system_is_no_way_out_of_the_run_folder(checkpoint, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = torch.load(checkpoint, weights_only=True)
    evil["system"] = "../../up"
    torch.save(evil, "evil.ckpt")
    options = ["--data", "Synthetic", "--trainer.logger", "false", "--data.cache_dir", str(cache)]
    assert main(["test", "--ckpt_path", "evil.ckpt", *options]) == 0
    (run,) = Path("runs").glob("*/*/predictions.csv")
    assert run.resolve().is_relative_to(tmp_path / "runs")


def test_a_network_of_ones_own_runs_where_the_command_names_it(checkpoint, tmp_path, cache, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_networks.py").write_text("from ser.models import CoRNN\n\n\nclass Mine(CoRNN):\n    pass\n")
    common = ["--trainer.logger", "false", "--data.cache_dir", str(cache)]
    net = ["--model.net", "my_networks.Mine", "--model.net.use_conformer", "false", "--model.net.lstm_hidden", "2"]
    assert main(["fit", "--config", CONFIG, *net, "--trainer.max_epochs", "1", "--run.system", "mine", *common]) == 0
    best = "runs/mine-synthetic/fold0-seed1/checkpoints/best.ckpt"
    sys.modules.pop("my_networks")
    options = ["--ckpt_path", best, "--data", "Synthetic", *common]
    assert main(["test", *options]) == 2
    assert "'my_networks.Mine'" in capsys.readouterr().err
    assert "my_networks" not in sys.modules
    assert main(["test", "--model.net", "my_networks.Mine", *options]) == 0
    assert main(["test", "--config", "runs/mine-synthetic/fold0-seed1/config.yaml", *options]) == 0


def test_every_class_is_known_by_its_public_path_wherever_it_lies_or_lay():
    for path in ("ser.models.cornn.CoRNN", "ser.models.CoRNN"):
        assert public_path(path) == "ser.models.CoRNN"
    for path in ("ser.data.features.LogMel", "ser.data.LogMel", describe(LogMel())["class_path"]):
        assert public_path(path) == "ser.data.LogMel"
    assert public_path("ser.tracking.WandbLogger") == "ser.training.WandbLogger"
    assert public_path("torch.optim.adam.Adam") == "torch.optim.Adam"
    for path in registered():
        home, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(home), name), type)
        assert path.startswith(("ser.", "torch.optim.", "lightning.pytorch.cli."))


def test_names_of_people_may_look_like_paths():
    people = {"class_path": "ser.data.FixedSpeakers", "init_args": {"val": ["os.system"], "test": ["{b}"]}}
    settings = {"protocols": [people], "net": {"class_path": "ser.models.CoRNN", "init_args": {"pooling": "mean"}}}
    before = deepcopy(settings)
    check_classes(settings, "a checkpoint")
    assert settings == before


@pytest.mark.parametrize("place", ["hparams", "module_arguments"])
def test_settings_of_lightnings_older_checkpoints_are_looked_at_too(place, checkpoint, tmp_path):
    evil = torch.load(checkpoint, weights_only=True)
    nested_net(evil, popen(tmp_path / "PWNED"))
    evil[place] = evil.pop("hyper_parameters")
    torch.save(evil, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="must not decide which code runs"):
        EmotionClassifier.load_from_checkpoint(tmp_path / "evil.ckpt")


def test_a_checkpoint_does_not_say_what_is_deleted(checkpoint, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine/thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    evil = torch.load(checkpoint, weights_only=True)
    state = next(state for name, state in evil["callbacks"].items() if name.startswith("BestAndLast"))
    worst, path = torch.tensor(-1.0), f"local://{mine.parent}"  # Lightning removes what is no plain path
    state |= {"best_k_models": {path: worst}, "kth_best_model_path": path, "kth_value": worst}
    state |= {"best_model_score": worst, "best_model_path": "none", "last_model_path": path}
    del state["dirpath"]
    torch.save(evil, "evil.ckpt")
    options = ["--trainer.logger", "false", "--data.cache_dir", str(cache), "--trainer.max_epochs", "2"]
    assert main(["fit", "--config", CONFIG, *SMALL, *options, "--ckpt_path", "evil.ckpt"]) == 0
    assert mine.is_file()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("history", [{"speakers": {"train": [], "val": []}}]),
        ("recordings", {"train": "no digests!", "val": ""}),
        ("sessions", "no digests"),
        ("speakers", {"train": [1], "val": []}),
        ("origin", 5),
        ("fold", {"a": 1}),
        ("format", "new"),
        ("front_end", [1]),
        ("emotions", [1, 2]),
        ("feature_mean", "zero"),
    ],
)
def test_a_checkpoint_with_something_of_another_type_is_damaged(place, value, checkpoint, tmp_path, capsys):
    broken = torch.load(checkpoint, weights_only=True)
    places = (broken, broken["hyper_parameters"], broken["state_dict"], broken["history"][-1])
    next(part for part in places if place in part)[place] = value
    torch.save(broken, tmp_path / "broken.ckpt")
    assert main(["test", "--ckpt_path", str(tmp_path / "broken.ckpt"), "--data", "Synthetic"]) == 2
    assert "is not a checkpoint of ser, or is damaged" in capsys.readouterr().err


def test_a_checkpoint_does_not_say_which_folders_are_read_and_written(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    soundfile.write("theirs/a.wav", torch.randn(16000).numpy() / 10, 16000)
    evil = torch.load(checkpoint, weights_only=True)
    evil["front_end"] |= {"root": str(tmp_path / "theirs"), "cache_dir": str(tmp_path / "written")}
    torch.save(evil, "evil.ckpt")
    assert main(["predict", "--ckpt_path", "evil.ckpt", "--trainer.logger", "false"]) == 2
    assert "--data.root" in capsys.readouterr().err
    assert not (tmp_path / "written").exists()


def test_settings_without_end_are_refused():
    settings = {"net": {"class_path": "ser.models.CoRNN"}}
    settings["net"]["init_args"] = settings
    with pytest.raises(UserError, match="endlessly nested settings"):
        check_classes(settings, "a checkpoint")
