import pytest

from ser.models import ACRNN


@pytest.mark.parametrize("mel_pool", [4, 2])
def test_the_linear_layer_of_every_frame_is_initialised_as_one(mel_pool):
    linear = ACRNN(mel_pool=mel_pool).convolutions.blocks[-1].conv
    limit = (6 / (256 * 40 // mel_pool + 768)) ** 0.5  # Glorot: numbers of a frame in, units out
    assert 0.99 * limit < linear.weight.abs().max() <= limit
    assert not linear.bias.any()
