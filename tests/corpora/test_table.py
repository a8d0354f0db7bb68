from pathlib import Path

import pytest

from ser.corpora import Table
from ser.errors import UserError

FILES = ["wav/a.wav", "wav/b.wav", "c.wav"]


@pytest.fixture
def table(make_tree):
    """Return a function that writes a table beside three recordings."""

    def write(text: str, name: str = "corpus.csv", encoding: str = "utf-8") -> Path:
        path = make_tree(FILES) / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


GOOD = "file,emotion,speaker\nwav/a.wav,anger,anna\nwav/b.wav,joy,bert\n"


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        (GOOD, "corpus.csv", "utf-8"),
        (GOOD, "corpus.csv", "utf-8-sig"),
        (GOOD.replace("\n", "\r\n"), "corpus.CSV", "utf-8"),
        (GOOD.replace(",", ";"), "corpus.csv", "utf-8"),
        (GOOD.replace(",", "\t"), "corpus.tsv", "utf-8"),
        (GOOD.replace(",", "\t"), "corpus.csv", "utf-8"),
        (GOOD.replace(",", " , ") + "\n , ,\n", "corpus.csv", "utf-8"),
        (GOOD.replace("file", "File").replace("emotion", "EMOTION"), "corpus.csv", "utf-8"),
        (GOOD.replace("wav/", "wav\\"), "corpus.csv", "utf-8"),
        ('"file","emotion","speaker"\n"wav/a.wav", "anger","anna"\n"wav/b.wav","joy","bert"', "corpus.csv", "utf-8"),
    ],
    ids=["plain", "bom", "crlf", "semicolon", "tsv", "tabs in csv", "spaces", "case", "backslash", "quotes"],
)
def test_dialects(text, name, encoding, table, tmp_path):
    path = table(text, name, encoding)
    corpus = Table(root=path, cache_dir=tmp_path / "cache")
    assert [(u.path, u.emotion, u.speaker) for u in corpus.table] == [
        (path.parent / "wav/a.wav", "anger", "anna"),
        (path.parent / "wav/b.wav", "joy", "bert"),
    ]
    assert corpus.labels == ["anger", "joy"]
    assert corpus.relative(corpus.table[0].path) == "wav/a.wav"


def test_root_may_be_the_folder(table, tmp_path):
    corpus = Table(root=table(GOOD).parent, cache_dir=tmp_path / "cache")
    assert len(corpus.table) == 2


def test_optional_columns(table, parse):
    path = table(
        "file,emotion,speaker,gender,session,sentence,split,remark\n"
        "wav/a.wav,anger,anna,F,s1,t1,Train,loud\nwav/b.wav,joy,bert,male,,,test,\nc.wav,joy,cleo,,,,,\n"
    )
    good, _ = parse(Table(root=path), path.parent)
    facts = [(u.gender, u.session, u.sentence, u.split) for u in good.values()]
    assert facts == [("female", "s1", "t1", "train"), ("male", None, None, "test"), (None, None, None, None)]


def test_other_column_names(table, parse):
    path = table("path,label,actor\nwav/a.wav,anger,anna\n")
    corpus = Table(root=path, columns={"file": "path", "emotion": "label", "speaker": "actor"})
    good, _ = parse(corpus, path.parent)
    assert good["wav/a.wav"].speaker == "anna"


def test_absolute_path(table, make_tree, tmp_path):
    elsewhere = make_tree(FILES) / "c.wav"
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables/t.csv"
    path.write_text(f"file,emotion,speaker\n{elsewhere},anger,anna\n")
    assert [u.path for u in Table(root=path).utterances(path.parent)] == [elsewhere]


def test_missing_file_is_a_bad_file_with_its_line(table, parse):
    path = table(GOOD + "wav/z.wav,joy,bert\n")
    good, bad = parse(Table(root=path), path.parent)
    assert len(good) == 2
    assert bad == {"wav/z.wav": "named in line 4 of corpus.csv, but there is no such file"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has the columns \(none\), and not file, emotion, speaker"),
        ("file,emotion\nwav/a.wav,anger\n", "and not speaker.*Speakers are needed"),
        ("file,emotion,speaker,Speaker\n", "more than one column named speaker"),
        (GOOD + "c.wav,,cleo\n", "Line 4 of .*corpus.csv has nothing under emotion"),
        (GOOD + "c.wav,joy,\n", "Line 4 .* nothing under speaker"),
        (GOOD + "c.wav,joy\n", "Line 4 .* has 2 cells, its first line 3"),
        (GOOD + "c.wav,joy,cleo,x\n", "Line 4 .* has 4 cells, its first line 3"),
        (GOOD + "./wav/a.wav,joy,cleo\n", "Line 4 .* as line 2 does"),
        ("file,emotion,speaker,gender\nc.wav,joy,cleo,x\n", "Line 2 .* gender 'x'; it must be female, f, male, m"),
        ("file,emotion,speaker,split\nc.wav,joy,cleo,dev\n", "Line 2 .* split 'dev'; it must be train, val, test"),
    ],
)
def test_wrong_table(text, message, table, parse):
    path = table(text)
    with pytest.raises(UserError, match=message):
        parse(Table(root=path), path.parent)


def test_not_utf8(table, parse):
    path = table(GOOD.replace("anna", "änna"), encoding="latin-1")
    with pytest.raises(UserError, match="save it as UTF-8"):
        parse(Table(root=path), path.parent)


def test_renamed_column_must_exist(table, parse):
    path = table(GOOD)
    with pytest.raises(UserError, match="and not sex"):
        parse(Table(root=path, columns={"gender": "sex"}), path.parent)


def test_unknown_key_of_columns():
    with pytest.raises(UserError, match="columns names path; its keys must be among file, emotion, speaker"):
        Table(columns={"path": "file"})


@pytest.mark.parametrize(
    ("names", "message"), [([], "no .csv or .tsv file"), (["a.csv", "b.tsv"], r"2 tables \(a.csv, b.tsv\)")]
)
def test_folder_must_hold_one_table(names, message, tmp_path):
    for name in [*names, "._a.csv"]:
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(UserError, match=message):
        Table(root=tmp_path).locate()
