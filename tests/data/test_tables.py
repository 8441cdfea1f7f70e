"""load_classification on a CSV file: columns, paths, faults."""

import pytest

from gcnet.data.classification.folders import DataWarning, load_classification
from gcnet.errors import DataError


@pytest.fixture
def table(tmp_path):
    """Write a CSV file beside four images, a/1.jpg, a/2.jpg, b/1.jpg and ../outside.jpg."""
    folder = tmp_path / "set"
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "../outside.jpg", "no extension"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")

    def write(text, encoding="utf-8"):
        file = folder / "data.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return file

    return write


def test_paths_are_relative_to_the_file_and_may_leave_its_folder(table):
    file = table("path,label\na/1.jpg,cat\nb/1.jpg,dog\n../outside.jpg,cat\nno extension,dog\n")
    data = load_classification(file, val_fraction=0)
    assert data.root == file.parent
    assert data.classes == ("cat", "dog")
    assert sorted((path.name, label) for path, label in data.train) == [
        ("1.jpg", 0),
        ("1.jpg", 1),
        ("no extension", 1),
        ("outside.jpg", 0),
    ]
    assert all(path.is_file() for path, _ in data.train)


def test_absolute_paths_are_allowed(table, tmp_path):
    file = table(f"path,label\n{tmp_path / 'outside.jpg'},cat\na/1.jpg,dog\n")
    assert load_classification(file, val_fraction=0).train[0].path == tmp_path / "outside.jpg"


def test_a_split_column_decides_the_splits(table):
    file = table("split,label,path\ntrain,cat,a/1.jpg\nTRAIN,dog,b/1.jpg\nvalid,cat,a/2.jpg\ntest,dog,../outside.jpg\n")
    with pytest.warns(DataWarning, match="no images in (val|test) of"):
        data = load_classification(file)
    assert [len(split) for split in (data.train, data.val, data.test)] == [2, 1, 1]


def test_without_a_split_column_validation_is_taken_from_every_class(table):
    file = table("path,label\na/1.jpg,cat\na/2.jpg,cat\nb/1.jpg,dog\n../outside.jpg,dog\n")
    data = load_classification(file)
    assert [label for _, label in data.val] == [0, 1]


@pytest.mark.parametrize(
    "text", ["\ufeffpath,label\na/1.jpg,cat\nb/1.jpg,dog\n", "Path , LABEL\r\na/1.jpg, cat\r\n\r\nb/1.jpg,dog"]
)
def test_a_byte_order_mark_spaces_and_blank_lines_do_no_harm(table, text):
    assert load_classification(table(text), val_fraction=0).classes == ("cat", "dog")


def test_repeated_rows_count_once_with_a_warning(table):
    file = table("path,label\na/1.jpg,cat\nb/1.jpg,dog\na/../a/1.jpg,cat\n")
    with pytest.warns(DataWarning, match="1 repeated rows ignored"):
        data = load_classification(file, val_fraction=0)
    assert len(data.train) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data.csv is empty"),
        (b"\xef\xbb\xbf", "data.csv is empty"),
        ("path,label\n", "has a header but no rows"),
        ("path,label,split\na/1.jpg,cat,train\nb/1.jpg,dog,dev\n", "line 3: split='dev'; allowed: train, val"),
        ("path,label,split\na/1.jpg,cat,\n", "line 2: split is empty"),
        ("path,label\na/1.jpg\n", r"line 2: label is empty in \['a/1.jpg'\]"),
        ("path,label\n ,cat\n", "line 2: path is empty"),
        ("file,label\na/1.jpg,cat\n", r"column path missing; the header is \['file', 'label'\](.|\n)*path,label,split"),
        ("a/1.jpg,cat\nb/1.jpg,dog\n", "column path and label missing"),
        ("path;label\na/1.jpg;cat\n", "columns must be separated by commas"),
        ("path,label,label\na/1.jpg,cat,dog\n", "column label appears twice"),
        (
            "path,label\na/1.jpg,cat\na/9.jpg,dog\n",
            r"1 of 2 images do not exist: 'a/9.jpg \(line 3\)'; paths are relative",
        ),
        ("path,label\na/1.jpg,cat\na/1.jpg,dog\n", "has label 'cat' in line 2, 'dog' in line 3; keep one"),
        ("path,label,split\na/1.jpg,cat,train\na/1.jpg,cat,test\n", "has split 'train' in line 2, 'test' in line 3"),
        ("path,label\na/1.jpg,cat\n", "one class only, 'cat'"),
        ("path,label,split\na/1.jpg,cat,test\n", "has test but no train part"),
        (
            "path,label,split\na/1.jpg,a,train\na/2.jpg,b,train\nb/1.jpg,c,test\n",
            "test has classes that train lacks: 'c'",
        ),
        ("path,label\n\xe4.jpg,cat\n".encode("latin-1"), "is not UTF-8 text"),
        ("path,label\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_a_faulty_file_says_where_and_why(table, text, message):
    with pytest.raises(DataError, match=message):
        load_classification(table(text))


def test_many_missing_files_are_counted_not_listed(table):
    rows = "".join(f"gone/{number}.jpg,{'ab'[number % 2]}\n" for number in range(100))
    with pytest.raises(
        DataError, match=r"100 of 100 images do not exist: .* and 97 more; paths are relative to"
    ) as caught:
        load_classification(table("path,label\n" + rows))
    assert len(str(caught.value)) < 600


def test_an_unreadable_file_is_an_error(table, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    file = table("path,label\n")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"cannot read .*data\.csv: Permission denied"):
        load_classification(file)
