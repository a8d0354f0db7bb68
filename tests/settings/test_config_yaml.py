import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ser.settings.config_yaml import dump, flow, load, plain

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\x85\u2028\u2029"))
LIKE_NUMBERS = st.from_regex(r"[-+]?[0-9_.:]{0,6}([eE][-+]?[0-9]{1,2})?", fullmatch=True)
WORDS = st.sampled_from(
    ["yes", "no", "on", "off", "y", "true", "True", "null", "Null", "~", "-", "=", "<<", ".inf", ".nan", "0x1F", "0o17"]
)
NAMES = st.one_of(TEXTS, LIKE_NUMBERS, WORDS)
VALUES = st.one_of(NAMES, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False))


@given(st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES), st.dictionaries(NAMES, VALUES))))
def test_what_is_dumped_is_read_again_by_us_and_by_pyyaml(value):
    assert plain(load(dump(value))) == value
    assert yaml.safe_load(dump(value)) == value
    assert plain(load(flow(value))) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "[0010, 1_000, 0x1F, 1:30, yes, True, ~, 2024-01-01]",
            ["0010", "1_000", "0x1F", "1:30", "yes", "True", "~", "2024-01-01"],
        ),
        ("[1e-3, .5, 1.50, -7, 0, +1, .inf]", [0.001, 0.5, 1.5, -7, 0, 1, math.inf]),
        ("[null, true, false]", [None, True, False]),
        ("{0: a, 00: b, null: c, true: d, 1.50: e}", {"0": "a", "00": "b", "null": "c", "true": "d", "1.50": "e"}),
        ("{a: &x {b: 1}, c: {<<: *x, 2: 3}}", {"a": {"b": 1}, "c": {"b": 1, "2": 3}}),
        ("a:", {"a": None}),
    ],
)
def test_what_is_read(text, value):
    read = plain(load(text))
    assert read == value
    assert repr(read) == repr(value)  # and of Python's own types


def test_what_was_read_is_written_in_a_line_as_it_was_written():
    text = "[1.50, 1e3, null, true, '0010', O'Brien, {a: 1}]"
    assert flow(load(text)) == repr(load(text)) == text


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{a: 1, 'a': 2}", "x: {n: 1}\ny: {n: {k: 1, k: 2}}"])
def test_a_key_that_is_given_twice_is_rejected(text):
    with pytest.raises(yaml.YAMLError, match=r"line \d repeats '[ak]' of line \d"):
        load(text)


def test_a_key_may_win_over_one_that_is_merged():
    merged = "a: &a {k: 1, l: 2}\nb: &b {<<: *a, k: 3}\nc: {<<: *b, l: 4}"
    assert plain(load(merged)) == yaml.safe_load(merged)
