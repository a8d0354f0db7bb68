"""Which settings decide a result: what counts, what does not, and what is the same under another name."""

import pytest

from ser.data import LogMel
from ser.runs.settings import FOLD_AND_SEED, LENGTH, differences
from ser.settings.class_paths import describe


def config(**changes):
    """Return a config as a fit keeps it, with some settings changed by their dotted names."""
    made = {
        "seed_everything": 1,
        "run": {"system": "cornn", "root": "runs"},
        "trainer": {"max_epochs": 3, "limit_train_batches": None, "logger": None, "devices": "auto", "callbacks": None},
        "model": {
            "net": {"class_path": "ser.models.CoRNN", "init_args": {"lstm_hidden": 8}},
            "segment_scores": "mean",
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        "data": {
            "class_path": "ser.corpora.IEMOCAP",
            "init_args": {
                "root": "a",
                "cache_dir": None,
                "num_workers": 0,
                "fold": 0,
                "subset": "improvised",
                "sampling": "shuffle",
                "padding": "fixed",
                "features": None,
            },
        },
        "early_stopping": {"patience": 15},
    }
    for name, value in changes.items():
        *sections, last = name.split("__")
        section = made
        for key in sections:
            section = section[key]
        section[last] = value
    return made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__init_args__sampling": "balanced"}, "data.sampling: shuffle, now balanced"),
        ({"data__init_args__padding": "batch"}, "data.padding: fixed, now batch"),
        ({"data__init_args__subset": "all"}, "data.subset: improvised, now all"),
        ({"data__init_args__of_my_own": 3}, "data.of_my_own: None, now 3"),
        ({"trainer__limit_train_batches": 2}, "trainer.limit_train_batches: None, now 2"),
        ({"model__segment_scores": "max"}, "model.segment_scores: mean, now max"),
        (
            {"trainer__callbacks": [{"class_path": "a.b.SWA"}]},
            "trainer.callbacks: None, now [{'class_path': 'a.b.SWA'}]",
        ),
        ({"optimizer__init_args__lr": 0.5}, "optimizer.lr: 0.001, now 0.5"),
        ({"optimizer__class_path": "torch.optim.SGD"}, "optimizer: torch.optim.Adam, now torch.optim.SGD"),
        ({"data__init_args__fold": 1}, "data.fold: 0, now 1"),
        ({"seed_everything": 2}, "seed_everything: 1, now 2"),
        ({"trainer__max_epochs": 4}, "trainer.max_epochs: 3, now 4"),
    ],
)
def test_what_decides_a_result_is_named(changes, message):
    assert [str(line) for line in differences(config(**changes), config())] == [message]


@pytest.mark.parametrize(
    "changes",
    [
        {"data__init_args__root": "elsewhere", "data__init_args__cache_dir": "c", "data__init_args__num_workers": 4},
        {"data__init_args__name": "mine", "data__init_args__download": True},
        {"trainer__logger": False, "trainer__devices": 2, "run": {"system": "other"}, "ckpt_path": "last"},
        {"model__net__class_path": "ser.models.cornn.CoRNN", "optimizer__class_path": "torch.optim.adam.Adam"},
        {"data__init_args__features": describe(LogMel())},  # what null stands for
        {
            "data__init_args__on_bad_file": "stop",
            "model__net__init_args": {"lstm_hidden": 8, "num_blocks": 1},
        },  # defaults
        {"data__init_args__merge": {}},
        {"checkpoint": {"save_last": True}},  # an older config's: another callback keeps the last epoch now
    ],
)
def test_places_speed_and_other_words_for_the_same_do_not_count(changes):
    assert differences(config(**changes), config()) == differences(config(), config(**changes)) == []


def test_an_option_that_one_config_does_not_name_has_its_default():
    older = config()
    del older["model"]["segment_scores"]
    assert differences(config(), older) == []
    assert [str(line) for line in differences(config(model__segment_scores="max"), older)] == [
        "model.segment_scores: mean, now max"
    ]


def test_a_resumed_fit_may_train_longer_and_an_experiment_holds_folds_and_seeds():
    longer = config(trainer__max_epochs=9, early_stopping__patience=1)
    assert differences(longer, config(), LENGTH) == []
    assert differences(config(trainer__limit_train_batches=2), config(), LENGTH)
    other = config(data__init_args__fold=3, seed_everything=7)
    assert differences(other, config(), FOLD_AND_SEED) == []
    assert differences(longer, config(), FOLD_AND_SEED)


def test_a_config_makes_nothing_be_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"class_path": "evil.Net", "init_args": {"a": 1}}
    named = differences(config(model__net={"class_path": "evil.Net", "init_args": {}}), config(model__net=evil))
    assert [line.name for line in named] == ["model.net.a"]
