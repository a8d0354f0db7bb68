"""What a network has seen is neither validated nor tested, whichever door the data come through."""

import csv
from functools import partial

import pytest
import soundfile
import torch

from ser.corpora import EmoDB, Table
from ser.data import ColumnSplit, FixedSpeakers, LeaveOneSentenceOut, LogMel, Preprocess, Split, StratifiedKFold
from ser.errors import UserError
from ser.models import CoRNN
from ser.training.task import EmotionClassifier
from tests.conftest import RATE_HZ, Mean, Tiny, speech

FEATURES = LogMel(RATE_HZ, n_mels=8, n_fft=256)


@pytest.fixture
def fit(make_trainer, tmp_path):
    """Fit for an epoch; returns the path of a checkpoint."""

    def make(data, name="fitted.ckpt", epochs=1, task=None, **options):
        task = task or EmotionClassifier(Mean(data.num_classes, data.feature_shape), data.labels)
        trainer = make_trainer(epochs, num_sanity_val_steps=0)
        trainer.fit(task, data, **options)
        trainer.save_checkpoint(tmp_path / name)
        return tmp_path / name

    return make


def load(path, data):
    return EmotionClassifier.load_from_checkpoint(path, net=Mean(data.num_classes, data.feature_shape))


def corpus_of(rows, root, cache_dir, **options):
    """Write a table: rows of (speaker, emotion, seed of the recording, split)."""
    root.mkdir(exist_ok=True)
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "emotion", "speaker", "split"])
        for number, (speaker, emotion, seed, split) in enumerate(rows):
            soundfile.write(root / f"{number}.wav", speech(seed, 0.3), RATE_HZ)
            table.writerow([f"{number}.wav", emotion, speaker, split])
    return table_of(root, cache_dir, **options)


def table_of(root, cache_dir, **options):
    return Table(root / "table.csv", features=FEATURES, cache_dir=cache_dir, **{"protocol": ColumnSplit(), **options})


def four_people(first_seed, names=("01", "02", "03", "04")):
    """Two speakers to train on, one to validate, one to test; 12 recordings of two emotions each."""
    splits = ("train", "train", "val", "test")
    return [
        (name, emotion, first_seed + 100 * place + take, split)
        for place, (name, split) in enumerate(zip(names, splits, strict=True))
        for take, emotion in enumerate(("anger", "neutral") * 6)
    ]


def test_a_fit_does_not_go_on_with_the_test_speaker_of_before(fit, tmp_path, cache_dir, make_trainer):
    rows = four_people(0)
    data = corpus_of(rows, tmp_path / "corpus", cache_dir)
    checkpoint = fit(data)
    swap = {"01": "test", "04": "train"}
    swapped = corpus_of([(*row[:3], swap.get(row[0], row[3])) for row in rows], tmp_path / "corpus", cache_dir)
    with pytest.raises(UserError, match="Test speaker 01 was used to train or select this checkpoint"):
        fit(swapped, "again.ckpt", epochs=2, ckpt_path=checkpoint)
    assert not (tmp_path / "again.ckpt").exists()
    with pytest.raises(UserError, match="Test speaker 01 was used"):
        make_trainer(1).test(load(checkpoint, swapped), swapped)
    with pytest.raises(UserError, match="Test speaker 01 was used"):
        make_trainer(1).test(load(checkpoint, swapped), swapped.test_dataloader())
    with pytest.raises(UserError, match="Test speaker 01 was used"):
        make_trainer(1).test(EmotionClassifier(Mean(2, data.feature_shape), data.labels), swapped, ckpt_path=checkpoint)


def test_a_fit_that_goes_on_remembers_every_fit_before(fit, tiny, make_trainer):
    first = tiny(protocol=FixedSpeakers(val=["ben"], test=["carla"], train=["anna"]))
    checkpoint = fit(first)
    second = tiny(first.root, protocol=FixedSpeakers(val=["ben"], test=["carla"], train=["dan"]))
    both = fit(second, "both.ckpt", epochs=2, ckpt_path=checkpoint)
    history = torch.load(both, weights_only=True)["history"]
    assert [entry["speakers"]["train"] for entry in history] == [["anna"], ["dan"]]
    make_trainer(1).test(load(both, first), second)
    for speaker in ("anna", "ben", "dan"):
        others = [other for other in Tiny.speakers if other != speaker]
        test = tiny(first.root, protocol=FixedSpeakers(val=others[:1], test=[speaker]))
        with pytest.raises(UserError, match=f"Test speaker {speaker} was used"):
            make_trainer(1).test(load(both, test), test)
        with pytest.raises(UserError, match=r"(Test|Validation) speaker"):
            fit(test, "third.ckpt", epochs=3, ckpt_path=both)


def test_a_second_fit_in_memory_remembers_the_first(fit, tiny, make_trainer):
    data = tiny(protocol=FixedSpeakers(val=["ben"], test=["carla"], train=["anna"]))
    task = EmotionClassifier(Mean(data.num_classes, data.feature_shape), data.labels)
    fit(data, task=task)
    fit(data, task=task)
    assert len(task.history) == 1
    with pytest.raises(UserError, match="Test speaker anna was used"):
        fit(tiny(data.root, protocol=FixedSpeakers(val=["ben"], test=["anna"])), task=task)


def test_a_resumed_fit_is_one_fit(fit, tiny):
    data = tiny()
    checkpoint = fit(data, epochs=1)
    assert len(torch.load(fit(data, epochs=2, ckpt_path=checkpoint), weights_only=True)["history"]) == 1


def test_the_same_recordings_are_found_under_any_name(fit, tmp_path, tiny, cache_dir, make_trainer):
    tiny_data = tiny(features=FEATURES)
    checkpoint = fit(tiny_data)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    lines = ["file,emotion,speaker,split"]
    for number, utterance in enumerate(tiny_data.table):
        samples, rate = soundfile.read(utterance.path)
        soundfile.write(renamed / f"{number}.flac", samples, rate)
        split = {"anna": "train", "ben": "val", "carla": "test"}.get(utterance.speaker, "train")
        lines.append(f"{number}.flac,{utterance.emotion},voice {utterance.speaker[::-1]},{split}")
    (renamed / "table.csv").write_text("\n".join(lines))
    table = table_of(renamed, cache_dir)
    with pytest.raises(UserError, match=r"Test speaker voice alrac was used .* sample for sample"):
        make_trainer(1).test(load(checkpoint, table), table)


def test_one_shared_recording_tells_whose_all_the_others_are(fit, tmp_path, cache_dir, make_trainer):
    checkpoint = fit(corpus_of(four_people(0), tmp_path / "one", cache_dir))
    strangers = four_people(5000, ("11", "12", "13", "14"))
    # The test speaker's only known recording is on another split than the one that is scored.
    shared = [*strangers, ("14", "anger", 0, "")]
    other = corpus_of(shared, tmp_path / "two", cache_dir)
    with pytest.raises(UserError, match="Test speaker 14 was used"):
        make_trainer(1).test(load(checkpoint, other), other)


def test_strangers_who_share_a_name_are_tested_and_noted(fit, tmp_path, cache_dir, make_trainer):
    checkpoint = fit(corpus_of(four_people(0), tmp_path / "one", cache_dir))
    other = corpus_of(four_people(5000, ("11", "12", "13", "01")), tmp_path / "two", cache_dir)
    task = load(checkpoint, other)
    make_trainer(1).test(task, other)
    assert any("Speakers named 01 are also in table, fold 0" in note for note in task.notes)
    same = table_of(tmp_path / "two", cache_dir, name="table")  # as the note proposes
    with pytest.raises(UserError, match="Test speaker 01 was used"):
        make_trainer(1).test(load(checkpoint, same), same)


def test_corpora_of_one_stated_name_have_the_same_speakers(fit, tmp_path, cache_dir, make_trainer):
    named = corpus_of(four_people(0), tmp_path / "one", cache_dir, name="My corpus")
    checkpoint = fit(named)
    # Another cut of the same recordings has another content.
    cut = corpus_of(four_people(5000, ("02", "11", "12", "01")), tmp_path / "two", cache_dir, name="my-corpus")
    with pytest.raises(UserError, match=r"Test speaker 01 was used .* give this corpus another --data\.name"):
        make_trainer(1).test(load(checkpoint, cut), cut)
    other = table_of(tmp_path / "two", cache_dir, name="other")
    make_trainer(1).test(load(checkpoint, other), other)


def test_a_published_corpus_is_itself_in_every_copy(fit, tmp_path, cache_dir, make_trainer):
    def copy(folder, seconds):
        folder.mkdir()
        for speaker in ("03", "08", "09", "10"):
            for letter in "WN":
                for take in "abcdef":
                    seed = int(speaker) * 100 + ord(letter) + ord(take)
                    soundfile.write(folder / f"{speaker}a01{letter}{take}.wav", speech(seed, seconds), RATE_HZ)
        return folder

    def corpus(root, **options):
        return EmoDB(root, features=FEATURES, cache_dir=cache_dir, **options)

    checkpoint = fit(corpus(copy(tmp_path / "whole", 0.3), fold=0))
    for name in (None, "EMO-DB cut at 0.2 s"):
        cut = corpus(tmp_path / "cut" if name else copy(tmp_path / "cut", 0.2), fold=3, name=name)
        with pytest.raises(UserError, match="Test speaker 10 was used"):
            make_trainer(1).test(load(checkpoint, cut), cut)
    make_trainer(1).test(load(checkpoint, cut), corpus(tmp_path / "cut", fold=0))


def test_what_a_protocol_shares_may_be_shared_but_no_recording(fit, tiny, make_trainer):
    shared = tiny(protocol=StratifiedKFold(4))
    checkpoint = fit(shared)
    make_trainer(1).test(load(checkpoint, shared), shared)
    other = tiny(shared.root, protocol=StratifiedKFold(4), fold=2)
    with pytest.raises(UserError, match="4 recordings of test were used to train or select this checkpoint"):
        make_trainer(1).test(load(checkpoint, other), other)
    (shared.root / "dan_anger_s1.wav").rename(shared.root.parent / "dan_anger_s1.wav")
    fewer = fit(tiny(shared.root, protocol=FixedSpeakers(val=["anna"], test=["ben"])), "fewer.ckpt")
    (shared.root.parent / "dan_anger_s1.wav").rename(shared.root / "dan_anger_s1.wav")

    class OfDan(StratifiedKFold):
        def divide(self, utterances, fold):
            tested = [i for i, u in enumerate(utterances) if u.path.name in ("dan_anger_s1.wav", "ben_neutral_s1.wav")]
            return Split(*(tuple(i for i in range(16) if (i in tested) == on) for on in (False, False, True)))

    task = load(fewer, shared)
    make_trainer(1).test(task, tiny(shared.root, protocol=OfDan(3)))
    assert "1 of 2 test speakers are also in the training of Tiny, fold 0." in task.notes


def test_a_sentence_that_was_trained_on_is_not_tested_as_unseen(fit, tiny, make_trainer):
    data = tiny(protocol=FixedSpeakers(val=["ben"], test=["carla"], train=["anna"]))
    checkpoint = fit(data)
    sentences = tiny(data.root, protocol=LeaveOneSentenceOut(new_speakers=True), fold=3)  # dan's
    with pytest.raises(UserError, match="1 of 1 sentences of test were used"):
        make_trainer(1).test(load(checkpoint, sentences), sentences)


def test_validation_speakers_that_were_trained_on_are_rejected(fit, tiny, make_trainer):
    data = tiny(protocol=FixedSpeakers(val=["ben"], test=["carla"]))
    checkpoint = fit(data)
    other = tiny(data.root, protocol=FixedSpeakers(val=["anna"], test=["carla"]))
    with pytest.raises(UserError, match="Validation speaker anna was used to train this checkpoint"):
        make_trainer(1).validate(load(checkpoint, other), other)
    again = tiny(data.root, protocol=FixedSpeakers(val=["ben"], test=["anna"], train=["dan"]))
    make_trainer(1).validate(load(checkpoint, again), again)  # chosen on before, and again


def test_a_checkpoint_holds_no_file_name_and_little_else(fit, tiny):
    checkpoint = fit(tiny())
    (entry,) = torch.load(checkpoint, weights_only=True)["history"]
    assert ".wav" not in str(entry)
    assert len(str(entry)) < 3000


def test_an_older_checkpoint_is_guarded_by_names_and_says_so(fit, tiny, make_trainer, tmp_path):
    data = tiny()
    checkpoint = torch.load(fit(data), weights_only=True)
    (entry,) = checkpoint.pop("history")
    del checkpoint["format"]
    checkpoint["trained_on"] = {key: entry[key] for key in ("corpus", "merge", "protocol", "fold", "speakers")}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    task = load(tmp_path / "old.ckpt", data)
    make_trainer(1).test(task, data)
    assert any("older format" in note for note in task.notes)
    other = tiny(data.root, fold=2)
    with pytest.raises(UserError, match="Test speaker carla was used"):
        make_trainer(1).test(load(tmp_path / "old.ckpt", other), other)


@pytest.mark.parametrize(
    ("features", "preprocess", "named"),
    [
        (LogMel(RATE_HZ, n_mels=8, n_fft=256, deltas=1), Preprocess(), "features.deltas: 0, now 1"),
        (LogMel(RATE_HZ, n_mels=8, n_fft=256, hop_ms=20), Preprocess(), "features.hop_ms: 10.0, now 20"),
        (FEATURES, Preprocess(pre_emphasis=0.9), "preprocess.pre_emphasis: 0.0, now 0.9"),
    ],
)
def test_data_of_another_front_end_are_rejected(fit, tiny, make_trainer, features, preprocess, named):
    data = tiny(features=FEATURES)
    checkpoint = fit(data)
    other = tiny(data.root, features=features, preprocess=preprocess)
    for call in ("test", "validate", "predict"):
        task = load(checkpoint, data)
        with pytest.raises(UserError, match=named):
            getattr(make_trainer(1), call)(task, other)
    with pytest.raises(UserError, match=f"{named}|another network"):  # more channels want more weights
        fit(other, epochs=2, ckpt_path=checkpoint)


def test_loaders_without_their_data_module_are_no_way_to_train(tiny, make_trainer):
    data = tiny()
    task = EmotionClassifier(Mean(data.num_classes, data.feature_shape), data.labels)
    data.prepare_data()
    with pytest.raises(UserError, match="Loaders were given without their data module"):
        make_trainer(1).fit(task, data.train_dataloader())


@pytest.mark.parametrize("several", [lambda loader: {"a": loader}, lambda loader: {"a": [loader]}])
def test_loaders_in_a_dict_are_no_way_round(several, fit, tiny, make_trainer):
    first = tiny(fold=0)
    checkpoint = fit(first)
    seen = tiny(first.root, fold=1)
    seen.prepare_data()
    with pytest.raises(UserError, match=r"Test speaker \w+ was used"):
        make_trainer(1).test(load(checkpoint, first), several(seen.test_dataloader()))


def test_data_with_other_labels_or_in_another_order_are_rejected(fit, tiny, make_trainer):
    data = tiny()
    checkpoint = fit(data)
    other = tiny(data.root, emotions=data.labels[::-1])
    for call in ("test", "validate", "fit"):
        with pytest.raises(UserError, match=f"The checkpoint recognises {', '.join(data.labels)}; the data are"):
            getattr(make_trainer(1), call)(load(checkpoint, data), other)


def test_a_loaded_network_is_trained_on_and_saved(fit, tiny):
    data = tiny()
    net = CoRNN(data.num_classes, data.feature_shape, lstm_hidden=2, use_conformer=False)
    first = fit(data, task=EmotionClassifier(net, data.labels, optimizer=partial(torch.optim.SGD, lr=0.5)))
    task = EmotionClassifier.load_from_checkpoint(first)
    second = EmotionClassifier.load_from_checkpoint(fit(data, "second.ckpt", task=task))
    optimizer = second.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.5


def test_emodb_and_its_copy_cut_at_two_seconds_are_the_same_people(fit, corpora, cache_dir, make_trainer):
    def corpus(folder, **options):
        root = corpora / folder
        few = ["anger", "neutral"]
        return EmoDB(root, emotions=few, features=LogMel(n_mels=8), cache_dir=cache_dir, batch_size=64, **options)

    data = corpus("emodb")
    checkpoint = fit(data)
    same = corpus("emodb_2s", fold=4)
    with pytest.raises(UserError, match="Test speaker 11 was used"):
        make_trainer(1).test(load(checkpoint, data), same)
