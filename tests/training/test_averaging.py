"""Lightning's averaging callbacks: scores are those of the averaged weights, with the training statistics."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging

from ser.cli import main
from ser.corpora import Synthetic
from ser.data import LogMel
from ser.training.task import EmotionClassifier
from tests.conftest import Mean

CONFIGS = Path(__file__).parents[2] / "configs"
DECAY, EPOCHS, STOCHASTIC_FROM = 0.5, 4, 1


class Average(Callback):
    """Averages by itself: exponentially after every step, as plain mean over starts of epochs, or not at all."""

    def __init__(self, kind):
        self.kind, self.weights, self.count = kind, None, 0

    def _take_in(self, module):
        now = [parameter.detach().clone() for parameter in module.net.parameters()]
        self.count += 1
        share = {"exponential": 1 - DECAY, "stochastic": 1 / self.count}[self.kind]
        self.weights = now if self.weights is None else [(1 - share) * a + share * b for a, b in zip(self.weights, now)]  # noqa: B905

    def on_train_batch_end(self, trainer, module, *_):
        if self.kind == "exponential":
            self._take_in(module)

    def on_train_epoch_start(self, trainer, module):
        if self.weights is None and self.kind == "initial":
            self.weights = [parameter.detach().clone() for parameter in module.net.parameters()]
        if self.kind == "stochastic" and trainer.current_epoch >= STOCHASTIC_FROM:
            self._take_in(module)

    def state_dict(self):
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state):
        self.weights, self.count = state["weights"], state["count"]


AVERAGING = {
    "exponential": lambda: EMAWeightAveraging(decay=DECAY),
    "initial": lambda: EMAWeightAveraging(decay=DECAY, update_starting_at_step=999),  # as they were, until then
    "stochastic": lambda: StochasticWeightAveraging(0.5, swa_epoch_start=STOCHASTIC_FROM + 1, annealing_epochs=1),
}


@pytest.fixture
def data(cache):
    return Synthetic(features=LogMel(n_mels=8), cache_dir=cache, batch_size=40)


@pytest.mark.parametrize("kind", AVERAGING)
def test_scores_are_of_the_averaged_weights_and_the_training_statistics(data, make_trainer, tmp_path, kind):
    def fit(**resumed):
        seed_everything(7)
        task = EmotionClassifier(Mean(4, (1, 8, 300)), data.labels, partial(torch.optim.SGD, lr=0.5))
        every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        callbacks = [ours := Average(kind), AVERAGING[kind](), *([] if resumed else [every])]
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=not resumed,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
        trainer.fit(task, data, **resumed)
        return task, ours, trainer.test(task, data, verbose=False)[0]

    task, ours, scores = fit()
    mean, sigma = data.statistics()
    by_hand = EmotionClassifier(copy.deepcopy(task.net), data.labels)
    by_hand.feature_mean, by_hand.feature_sigma = mean, sigma
    with torch.no_grad():
        for parameter, value in zip(by_hand.net.parameters(), ours.weights, strict=True):
            parameter.copy_(value)
    (expected,) = make_trainer(1).test(by_hand, data, verbose=False)
    assert scores == pytest.approx(expected, abs=1e-5)

    _, _, again = fit(ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    assert again == pytest.approx(expected, abs=1e-5)
    if kind != "stochastic":  # whose average comes into being at the end
        reloaded = EmotionClassifier.load_from_checkpoint(
            tmp_path / f"epoch={EPOCHS - 1}.ckpt", net=Mean(4, (1, 8, 300))
        )
        assert make_trainer(1).test(reloaded, data, verbose=False)[0] == pytest.approx(expected, abs=1e-5)


def test_a_fit_tests_exponential_averages_as_its_checkpoint_holds_them(cache, tmp_path, monkeypatch):
    """A fit's own test and that of its checkpoint are the same."""
    monkeypatch.chdir(tmp_path)
    small = ["--model.net.lstm_hidden", "4", "--data.features.n_mels", "8", "--trainer.max_epochs", "2"]
    averaging = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"]
    places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    assert main(["fit", "--config", str(CONFIGS / "cornn_no_conformer.yaml"), *small, *averaging, *places]) == 0
    run = Path("runs/cornn_no_conformer-synthetic/fold0-seed1")
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--data", "Synthetic", "--ckpt_path", best, *places]) == 0
    again = run.with_name("test-fold0-seed1")
    assert (run / "predictions.csv").read_bytes() == (again / "predictions.csv").read_bytes()


@pytest.mark.parametrize("system", ["cornn_no_conformer", "cornn"])  # without and with batch norm
def test_a_fit_tests_the_averaged_weights_and_goes_on(system, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model.net.lstm_hidden", "4", "--data.features.n_mels", "8", "--trainer.max_epochs", "3"]
    averaging = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"]
    averaging += ["--trainer.callbacks.swa_epoch_start", "1"]
    places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    command = ["fit", "--config", str(CONFIGS / f"{system}.yaml"), *small, *averaging, *places]
    assert main(command) == 0
    run = Path(f"runs/{system}-synthetic/fold0-seed1")
    tested = json.loads((run / "metrics.json").read_text())["test"]
    assert tested["checkpoint"] == "averaged.ckpt"
    weights = {name: torch.load(run / f"checkpoints/{name}.ckpt")["state_dict"] for name in ("averaged", "last")}
    assert any(not torch.equal(value, weights["last"][key]) for key, value in weights["averaged"].items())
    assert torch.equal(weights["averaged"]["feature_mean"], weights["last"]["feature_mean"])
    (run / "predictions.csv").unlink()
    assert main([*command, "--ckpt_path", "last"]) == 0  # killed before its test: it goes straight there
    assert json.loads((run / "metrics.json").read_text())["test"] == tested
    again = ["--config", str(run / "config.yaml"), "--run.name", "again"]
    assert main(["fit", *again]) == 0  # as README says of config.yaml
    assert (run.with_name("again") / "checkpoints/averaged.ckpt").is_file()
