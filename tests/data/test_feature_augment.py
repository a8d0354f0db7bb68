import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ser.data import Batch
from ser.data.feature_augment import SpecAugment, mix_up
from ser.errors import UserError
from ser.training.task import EmotionClassifier


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_every_utterance_has_bands_and_stretches_of_its_own_in_all_channels():
    masked = SpecAugment(bin_masks=1, bin_width=8, time_masks=1, time_width=30)(torch.ones(64, 3, 40, 300))
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    bands = (masked[:, 0] == 0).all(dim=2)  # (B, F)
    stretches = (masked[:, 0] == 0).all(dim=1)  # (B, T)
    for held, width in ((bands, 8), (stretches, 30)):
        assert held.sum(dim=1).max() < width  # drawn from 0 to width, which is left out
        assert (held.int().diff(dim=1) == 1).sum(dim=1).max() <= 1  # in one piece
        assert len({tuple(row.tolist()) for row in held}) > 20
    # Nothing else is masked.
    assert torch.equal(masked[:, 0] == 0, bands[:, :, None] | stretches[:, None])


def test_a_waveform_is_masked_in_time_only():
    masked = SpecAugment(bin_masks=5, bin_width=8, time_masks=1, time_width=400)(torch.ones(32, 1, 16_000))
    assert 0 < (masked == 0).float().mean() < 400 / 16_000


def test_no_masks_change_nothing():
    features = torch.randn(4, 1, 40, 50)
    assert torch.equal(SpecAugment(bin_masks=0, time_masks=0)(features), features)


@pytest.mark.parametrize("options", [{"bin_masks": -1}, {"time_masks": -1}, {"bin_width": 0}, {"time_width": 0}])
def test_impossible_masks_are_rejected(options):
    (name,) = options
    with pytest.raises(UserError, match=name):
        SpecAugment(**options)


def test_a_mixture_holds_both_utterances_and_the_longer_length():
    features, lengths = torch.randn(16, 2, 5), torch.arange(1, 17)
    mixed = mix_up(features, lengths, alpha=0.4)
    assert 0.5 <= mixed.share <= 1
    assert sorted(mixed.others.tolist()) == list(range(16))
    for i, other in enumerate(mixed.others.tolist()):
        expected = mixed.share * features[i] + (1 - mixed.share) * features[other]
        torch.testing.assert_close(mixed.features[i], expected)
        assert mixed.lengths[i] == max(lengths[i], lengths[other])


class Flat(nn.Module):
    """Keeps what it is given, and gives logits that training can change."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features, lengths):
        self.seen = features.detach()
        return self.scale * features.flatten(1)[:, :3]


def batch():
    return Batch(torch.randn(6, 1, 8, 20), torch.full((6,), 20), torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))


def task(**options):
    task = EmotionClassifier(Flat(), ["a", "b", "c"], normalize="none", **options)
    task.log = lambda *_, **__: None  # there is no trainer
    return task


@pytest.mark.parametrize("options", [{"spec_augment": SpecAugment(time_width=15)}, {"mixup": 0.5}])
def test_training_batches_are_changed_and_others_are_not(options):
    module, held = task(**options), batch()
    for step in (module.validation_step, module.test_step, module.predict_step):
        step(held, 0)
        assert torch.equal(module.net.seen, held.features)
    module.training_step(held, 0)
    assert not torch.equal(module.net.seen, held.features)


def test_the_loss_of_a_mixture_is_shared_between_both_emotions():
    module, held = task(mixup=1.0), batch()
    module.emotion_weights = torch.tensor([1.0, 2.0, 0.5])
    torch.manual_seed(3)
    loss = module.training_step(held, 0)
    torch.manual_seed(3)
    mixed = mix_up(held.features, held.lengths, 1.0)
    logits = mixed.features.flatten(1)[:, :3]
    one_hot = F.one_hot(held.targets, 3) * module.emotion_weights[held.targets][:, None]
    wanted = mixed.share * one_hot + (1 - mixed.share) * one_hot[mixed.others]
    torch.testing.assert_close(loss, -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean())


def test_negative_mixup_is_rejected():
    with pytest.raises(UserError, match="mixup is -1"):
        task(mixup=-1.0)
