import functools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser.data import LeaveOneSpeakerOut, LogMel, Preprocess
from ser.settings.class_paths import describe, digest

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_plain_data_describe_themselves(value):
    assert describe(value) == value
    assert json.loads(json.dumps(describe(value))) == value


@given(PLAIN, PLAIN)
def test_digests_differ_exactly_where_the_data_differ(one, other):
    assert digest(one) == digest(one)
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one, 32) == digest(other, 32)) is same


def test_a_digest_does_not_depend_on_order_container_or_process():
    assert digest({"a": 1, "b": [Path("x"), 2.5]}) == digest({"b": ("x", 2.5), "a": 1}) == "b5fee71c5c56"
    assert len(digest(1, 20)) == 20


def test_objects_are_described_by_what_they_were_made_with():
    assert describe(LeaveOneSpeakerOut("03")) == {
        "class_path": "ser.data.LeaveOneSpeakerOut",
        "init_args": {"validation_speaker": "03"},
    }
    preprocess = describe(Preprocess(pre_emphasis=0.97))
    assert preprocess["init_args"].items() >= {"top_db": 60.0, "pre_emphasis": 0.97, "duration_s": 3.0}.items()
    assert describe({"features": [LogMel(deltas=2)]})["features"][0]["init_args"]["deltas"] == 2


def test_classes_and_partials_are_described_by_their_path():
    assert describe(torch.optim.Adam) == "torch.optim.Adam"
    assert describe(functools.partial(torch.optim.Adam, lr=0.01)) == {
        "class_path": "torch.optim.Adam",
        "init_args": {"lr": 0.01},
    }


class Forgetful:
    def __init__(self, kept, lost, *rest, **options):
        self.kept = kept


def test_an_object_that_forgets_an_argument_cannot_be_described():
    with pytest.raises(TypeError, match=r"Forgetful does not keep its constructor argument\(s\) lost as attributes"):
        describe(Forgetful(1, 2))


def test_a_partial_of_positions_cannot_be_described():
    with pytest.raises(TypeError, match=r"The partial of torch.optim.Adam has positional arguments"):
        describe(functools.partial(torch.optim.Adam, [1]))


def test_functions_are_described_by_their_path_and_cannot_be_without_one():
    assert describe(describe) == "ser.settings.class_paths.describe"
    assert digest({"f": describe}) != digest({"f": digest})
    for function in (lambda x: x, _local()):
        with pytest.raises(TypeError, match="has no import path; define it in a module"):
            describe({"transform": function})


def _local():
    def function():
        pass

    return function
