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


DIALECTS = {
    "plain": (GOOD, "corpus.csv", "utf-8"),
    "bom": (GOOD, "corpus.csv", "utf-8-sig"),
    "crlf": (GOOD.replace("\n", "\r\n"), "corpus.CSV", "utf-8"),
    "semicolon": (GOOD.replace(",", ";"), "corpus.csv", "utf-8"),
    "tsv": (GOOD.replace(",", "\t"), "corpus.tsv", "utf-8"),
    "tabs in csv": (GOOD.replace(",", "\t"), "corpus.csv", "utf-8"),
    "spaces": (GOOD.replace(",", " , ") + "\n , ,\n", "corpus.csv", "utf-8"),
    "case": (GOOD.replace("file", "File").replace("emotion", "EMOTION"), "corpus.csv", "utf-8"),
    "backslash": (GOOD.replace("wav/", "wav\\"), "corpus.csv", "utf-8"),
    "quotes": (
        '"file","emotion","speaker"\n"wav/a.wav", "anger","anna"\n"wav/b.wav","joy","bert"',
        "corpus.csv",
        "utf-8",
    ),
    "cr": (GOOD.replace("\n", "\r"), "corpus.csv", "utf-8"),
    "sep": ("sep=;\r\n" + GOOD.replace(",", ";"), "corpus.csv", "utf-8-sig"),
    "sep in quotes": ('"sep=;"\r\n' + GOOD.replace(",", ";"), "corpus.csv", "utf-8"),
    "utf-16": (GOOD.replace(",", "\t").replace("\n", "\r\n"), "corpus.csv", "utf-16"),
    "utf-16 tsv": (GOOD.replace(",", "\t"), "corpus.tsv", "utf-16"),
    "padded": (GOOD.replace("\nwav", ",,,\nwav") + ",,,,,\n,,,\n", "corpus.csv", "utf-8"),
    "padded header": (GOOD.replace("speaker", "speaker,,"), "corpus.csv", "utf-8"),
    "blank lines": ("\n\r\n  \n" + GOOD + "\n\n\t\n", "corpus.csv", "utf-8"),
    "quotes and spaces": (GOOD.replace("joy", ' "joy" ').replace("anna", '"anna" '), "corpus.csv", "utf-8"),
}


@pytest.mark.parametrize(("text", "name", "encoding"), DIALECTS.values(), ids=DIALECTS)
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
    assert bad == {"wav/z.wav": "named in line 4 of corpus.csv, but the file does not exist"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"lacks the columns file, emotion, speaker; it has \(none\)"),
        ("file,emotion\nwav/a.wav,anger\n", "lacks the columns speaker;.*Speakers are needed"),
        ("file,emotion,speaker,Speaker\n", "more than one column named speaker"),
        (GOOD + "c.wav,,cleo\n", "Line 4 of .*corpus.csv has no emotion"),
        (GOOD + "c.wav,joy,\n", "Line 4 .* has no speaker"),
        (GOOD + "c.wav,joy\n", "Line 4 .* has 2 cells, the first line 3"),
        (GOOD + "c.wav,joy,cleo,x\n", "Line 4 .* has 4 cells, the first line 3"),
        (GOOD + "./wav/a.wav,joy,cleo\n", "Line 4 .* repeats ./wav/a.wav of line 2"),
        ("file,emotion,speaker,gender\nc.wav,joy,cleo,x\n", "Line 2 .* gender 'x'; it must be female, f, male, m"),
        ("file,emotion,speaker,split\nc.wav,joy,cleo,dev\n", "Line 2 .* split 'dev'; it must be train, val, test"),
    ],
)
def test_wrong_table(text, message, table, parse):
    path = table(text)
    with pytest.raises(UserError, match=message):
        parse(Table(root=path), path.parent)


NOTES = {
    "begins with a quote": '"Ja, he said',
    "ends with a quote": 'so he said"',
    "within": 'he said "Ja" to it',
    "at both ends of a part": '"Ja" he said "no"',
    "one": '"',
    "line separator": "one\u2028two\u2029three",
    "next line": "one\x85two",
    "vertical tab and form feed": "one\x0btwo\x0cthree\x1cfour\x1dfive\x1esix",
}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_any_text_between_tabs_is_text(note, table, parse):
    lines = ["file\tsentence\temotion\tspeaker\tremark"]
    lines += [f"{file}\t{note}\tjoy\tspk{number}\t{note}" for number, file in enumerate(FILES)]
    path = table("\n".join(lines), "corpus.tsv")
    good, bad = parse(Table(root=path), path.parent)
    assert [(name, u.speaker, u.sentence) for name, u in good.items()] == [
        (file, f"spk{number}", note) for number, file in enumerate(FILES)
    ]
    assert not bad


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"so ""quoted"" it is"', 'so "quoted" it is'),
        ('"over\r\ntwo lines"', "over\r\ntwo lines"),
        ('"over\rthree\nlines; and, so ""on"""', 'over\rthree\nlines; and, so "on"'),
        ('""', None),
        ("one\u2028two\x0cthree\x85four", "one\u2028two\x0cthree\x85four"),
        ('5" tape', '5" tape'),
    ],
)
@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv")])
def test_what_a_cell_may_hold(cell, text, delimiter, name, table, parse):
    cells = [["file", "sentence", "emotion", "speaker"], *([file, cell, "joy", "anna"] for file in FILES)]
    path = table("\n".join(delimiter.join(row) for row in cells), name)
    good, bad = parse(Table(root=path), path.parent)
    assert [(name, u.emotion, u.speaker, u.sentence) for name, u in good.items()] == [
        (file, "joy", "anna", text) for file in FILES
    ]
    assert not bad


@pytest.mark.parametrize(
    "rows",
    [
        ['c.wav,joy,anna,"loud', "wav/a.wav,joy,anna,x", 'wav/b.wav,joy,anna,soft"'],
        ['c.wav,joy,anna,"loud', "wav/a.wav,joy,anna,x", 'wav/b.wav,joy,anna,"soft"'],
        ['c.wav,"joy,anna,loud', 'wav/a.wav,joy",anna,x'],
        ['c.wav,joy,anna,"loud'],
        ['c.wav,joy,anna,"loud" voice'],
    ],
)
def test_a_quote_that_would_swallow_rows_is_rejected_with_its_line(rows, table, parse):
    path = table("\n".join(["file,emotion,speaker,remark", 'c.wav,joy,anna,"one', 'two"', *rows]))
    with pytest.raises(UserError, match=r"Line 4 of .*corpus\.csv: a quote .* does not close"):
        parse(Table(root=path), path.parent)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_numbers_count_the_lines_within_cells(newline, table, parse):
    lines = ["", "file,emotion,speaker,remark", 'c.wav,joy,anna,"one', "", 'three"', "", "wav/z.wav,joy,anna,", "a,b"]
    path = table(newline.join(lines))
    with pytest.raises(UserError, match=r"Line 8 of .* has 2 cells, the first line 4"):
        parse(Table(root=path), path.parent)
    path = table(newline.join(lines[:-1]))
    assert parse(Table(root=path), path.parent)[1] == {
        "wav/z.wav": "named in line 7 of corpus.csv, but the file does not exist"
    }


def test_a_name_too_long_for_any_file_is_a_bad_file(table, parse):
    path = table(GOOD + f"{'x' * 300}.wav,joy,bert\n")
    _, bad = parse(Table(root=path), path.parent)
    assert [reason for reason in bad.values()] == ["named in line 4 of corpus.csv, but the file does not exist"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32"])
def test_zero_bytes_are_no_text(encoding, table, parse):
    path = table(GOOD, encoding=encoding)
    with pytest.raises(UserError, match="save it as UTF-8"):
        parse(Table(root=path), path.parent)


def test_not_utf8(table, parse):
    path = table(GOOD.replace("anna", "änna"), encoding="latin-1")
    with pytest.raises(UserError, match="save it as UTF-8"):
        parse(Table(root=path), path.parent)


def test_renamed_column_must_exist(table, parse):
    path = table(GOOD)
    with pytest.raises(UserError, match="lacks the columns sex"):
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


def test_files_that_lie_in_another_folder_are_named_with_it(table):
    """A table beside the folder of its recordings, with bare file names."""
    with pytest.raises(UserError) as error:
        Table(table("file,emotion,speaker\nA.WAV,anger,anna\nb.wav,joy,bert\nnowhere.wav,joy,bert\n")).labels  # noqa: B018
    assert "None of 3 recordings" in str(error.value)
    assert "A.WAV: named in line 2 of corpus.csv, but the file does not exist; did you mean wav/a.wav?" in str(
        error.value
    )
    assert "nowhere.wav: named in line 4 of corpus.csv, but the file does not exist\n" in str(error.value)
    assert "named like" not in str(error.value)
