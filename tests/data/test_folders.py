"""load_classification: folder and CSV layouts, their faults, the validation part, the fingerprint."""

import os
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnet.data.classification import folders
from gcnet.data.classification.folders import DataWarning, fingerprint, load_classification
from gcnet.data.listing import Listing
from gcnet.errors import DataError


def make(root, *names):
    """Write small files of these relative paths; loading opens none of them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def many(folder, count):
    return [f"{folder}/{number}.jpg" for number in range(count)]


def names(samples, root):
    return [(sample.path.relative_to(root).as_posix(), sample.label) for sample in samples]


def test_the_real_photographs_are_found(shared):
    data = load_classification(shared / "data/clothing_small")
    assert (len(data.train), len(data.val), len(data.test)) == (3068, 341, 372)
    assert data.classes[0] == "dress"
    assert len(data.classes) == 10
    assert Counter(data.classes[label] for _, label in data.test)["shoes"] == 73
    assert all(data.classes[label] == path.parent.name for path, label in data.val)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_known_by_their_usual_names(tmp_path, val):
    make(tmp_path, "train/b/1.jpg", "train/a/1.png", "train/a/0.JPEG", f"{val}/a/2.jpg", f"{val}/b/2.jpg")
    make(tmp_path, "test/a/3.webp", "test/b/3.tif")
    data = load_classification(tmp_path)
    assert data.classes == ("a", "b")
    assert names(data.train, tmp_path) == [("train/a/0.JPEG", 0), ("train/a/1.png", 0), ("train/b/1.jpg", 1)]
    assert names(data.val, tmp_path) == [(f"{val}/a/2.jpg", 0), (f"{val}/b/2.jpg", 1)]
    assert names(data.test, tmp_path) == [("test/a/3.webp", 0), ("test/b/3.tif", 1)]
    assert data.root == tmp_path


def test_two_validation_folders_are_an_error(tmp_path):
    make(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg")
    with pytest.raises(DataError, match="'val' and 'validation': two val splits"):
        load_classification(tmp_path)


def test_validation_is_taken_from_train_beside_a_test_part(tmp_path):
    make(tmp_path, *many("train/a", 10), *many("train/b", 5), "test/a/x.jpg", "test/b/x.jpg")
    data = load_classification(tmp_path, val_fraction=0.2)
    assert Counter(label for _, label in data.val) == {0: 2, 1: 1}
    assert len(data.train) == 12
    assert not set(data.train) & set(data.val)
    assert len(data.test) == 2


def test_the_seed_alone_decides_the_validation_part(tmp_path):
    make(tmp_path, *many("a", 30), *many("b", 30))
    first = load_classification(tmp_path, seed=1)
    assert first == load_classification(tmp_path, seed=1)
    assert set(first.val) != set(load_classification(tmp_path, seed=2).val)
    make(tmp_path, *many("c", 30))  # the other classes keep their split
    assert {s.path for s in first.val} < {s.path for s in load_classification(tmp_path, seed=1).val}


def test_no_validation_part_on_request(tmp_path):
    make(tmp_path, *many("a", 3), *many("b", 3))
    data = load_classification(tmp_path, val_fraction=0)
    assert (len(data.train), data.val, data.test) == (6, (), ())


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), "0.2", True])
def test_a_wrong_val_fraction_is_an_error(tmp_path, value):
    with pytest.raises(ValueError, match=r"val_fraction=.*allowed is 0 .* to below 1"):
        load_classification(tmp_path, val_fraction=value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.floats(0.001, 0.999), st.integers(0, 9))
def test_every_class_of_two_or_more_is_on_both_sides(tmp_path_factory, sizes, fraction, seed):
    root = tmp_path_factory.getbasetemp()
    listing = Listing(root)
    listing.splits["train"] = {str(c): [root / f"{c}-{k}" for k in range(size)] for c, size in enumerate(sizes)}
    before = {name: set(files) for name, files in listing.splits["train"].items()}
    folders._take_validation(root, listing, fraction, seed)
    train, val = listing.splits["train"], listing.splits.get("val", {})
    for name, files in before.items():
        assert set(train[name]) | set(val.get(name, [])) == files
        assert len(train[name]) + len(val.get(name, [])) == len(files)
        assert train[name]
        assert bool(val.get(name)) == (len(files) >= 2)
        if len(files) >= 2:
            assert abs(len(val[name]) - fraction * len(files)) <= 1


def test_a_class_of_one_image_stays_in_train_with_a_warning(tmp_path):
    make(tmp_path, *many("a", 4), "rare/1.jpg")
    with pytest.warns(DataWarning, match="too few images for a validation part .* of 'rare'"):
        data = load_classification(tmp_path)
    assert ("rare/1.jpg", 1) in names(data.train, tmp_path)


def test_spaces_unicode_nested_folders_and_hidden_files(tmp_path):
    make(tmp_path, "red wine/x/y/1.jpg", "red wine/2.jpg", "grün/1.jpg", "grün/.hidden.jpg", ".git/objects/1.jpg")
    make(tmp_path, "grün/._1.jpg", "red wine/.cache/3.jpg", "__MACOSX/grün/1.jpg", "grün/Thumbs.db", "README.md")
    data = load_classification(tmp_path, val_fraction=0)
    assert data.classes == ("grün", "red wine")
    assert names(data.train, tmp_path) == [("grün/1.jpg", 0), ("red wine/2.jpg", 1), ("red wine/x/y/1.jpg", 1)]
    assert data.ignored == {}


def test_both_unicode_forms_of_a_name_are_one_class(tmp_path):
    one, two = (unicodedata.normalize(form, "grün") for form in ("NFC", "NFD"))
    assert one != two
    make(tmp_path, f"train/{two}/1.jpg", "train/tea/1.jpg", f"val/{one}/1.jpg", "val/tea/1.jpg")
    assert load_classification(tmp_path).classes == (one, "tea")


def test_files_that_are_no_images_are_ignored_with_a_count(tmp_path):
    make(tmp_path, *many("a", 2), *many("b", 2), "a/notes.txt", "b/1.heic", "b/2.HEIC", "b/LICENSE")
    with pytest.warns(
        DataWarning, match=r"4 files that are no images ignored \(\(no extension\): 1, .heic: 2, .txt: 1\)"
    ):
        data = load_classification(tmp_path, val_fraction=0)
    assert len(data.train) == 4
    assert data.ignored == {".txt": 1, ".heic": 2, "(no extension)": 1}


def test_images_outside_class_folders_are_named_in_a_warning(tmp_path):
    make(tmp_path, *many("train/a", 2), *many("train/b", 2), "train/stray.jpg")
    with pytest.warns(DataWarning, match="train: 1 images outside any class folder ignored"):
        load_classification(tmp_path)


def test_folders_beside_the_splits_are_named_in_a_warning(tmp_path):
    make(tmp_path, *many("train/a", 2), *many("train/b", 2), "extra/1.jpg")
    with pytest.warns(DataWarning, match="'extra' ignored beside the split folders"):
        load_classification(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path, *many("bus", 2), *many("train", 2), *many("tram", 2))
    assert load_classification(tmp_path).classes == ("bus", "train", "tram")


def test_links_in_a_circle_end(tmp_path):
    make(tmp_path, *many("a", 2), *many("b", 2))
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(load_classification(tmp_path, val_fraction=0).train) == 4


def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path):
    make(tmp_path, *many("a", 2), *many("b", 2), "odd/1.heic")
    (tmp_path / "void").mkdir()
    with pytest.raises(
        DataError, match=r"without any image in train: 'odd', 'void' \(1 files of other kinds ignored\)"
    ):
        load_classification(tmp_path)


def test_a_class_without_images_in_test_is_a_warning(tmp_path):
    make(tmp_path, *many("train/a", 2), *many("train/b", 2), "test/a/1.jpg")
    (tmp_path / "test" / "b").mkdir()
    with pytest.warns(DataWarning, match="no images in test of 'b'"):
        load_classification(tmp_path)


def test_one_class_only_is_an_error(tmp_path):
    make(tmp_path, *many("cat", 3))
    with pytest.raises(DataError, match="one class only, 'cat'; training needs at least two"):
        load_classification(tmp_path)


def test_a_folder_around_the_data_is_seen_through(tmp_path):
    make(tmp_path, "archive/train/a/1.jpg", "archive/train/b/1.jpg")
    with pytest.raises(DataError, match=r"one class only, 'archive'.*did you mean .*archive\?"):
        load_classification(tmp_path)


def test_classes_that_train_lacks_are_named_on_both_sides(tmp_path):
    make(tmp_path, *many("train/t-shirt", 2), *many("train/hat", 2), "test/tshirt/1.jpg", "test/hat/1.jpg")
    with pytest.raises(DataError, match="test has classes that train lacks: 'tshirt'; test has no images of 't-shirt'"):
        load_classification(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"holds no class folder.\nAllowed layouts:(.|\n)*DIR/train/CLASS(.|\n)*DIR/CLASS(.|\n)*FILE.csv"),
        (["1.jpg", "2.jpg"], "holds 2 images and no class folder"),
        (["train/1.jpg", "test/1.jpg"], "(train|test) holds no class folder(.|\n)*Allowed layouts"),
        (["test/a/1.jpg", "val/a/1.jpg"], "has test and val but no train part(.|\n)*Allowed layouts"),
    ],
)
def test_a_folder_of_another_layout_says_what_is_allowed(tmp_path, files, message):
    make(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        load_classification(tmp_path)


def test_a_missing_path_and_a_file_of_another_kind_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist; data must be a folder or a CSV file"):
        load_classification(tmp_path / "none")
    make(tmp_path, "data.zip")
    with pytest.raises(DataError, match=r"neither a folder nor a \.csv file"):
        load_classification(tmp_path / "data.zip")


def test_an_unreadable_folder_is_an_error_that_names_it(tmp_path, monkeypatch):
    make(tmp_path, *many("a", 2), *many("secret", 2))
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read the folder .*secret: Permission denied"):
        load_classification(tmp_path)


def test_given_classes_decide_the_labels_and_need_no_train(tmp_path):
    make(tmp_path, "test/b/1.jpg", "test/c/1.jpg")
    with pytest.warns(DataWarning, match="no images in test of 'a'"):
        data = load_classification(tmp_path, classes=["c", "b", "a"])
    assert data.classes == ("c", "b", "a")
    assert names(data.test, tmp_path) == [("test/c/1.jpg", 0), ("test/b/1.jpg", 1)]
    assert data.train == ()
    with pytest.raises(DataError, match="test has classes that are not among the given ones: 'c'"):
        load_classification(tmp_path, classes=["a", "b"])


@pytest.mark.parametrize("classes", [[], ["a", "a"], "ab"])
def test_wrong_given_classes_are_an_error(tmp_path, classes):
    make(tmp_path, "test/a/1.jpg")
    with pytest.raises(ValueError, match=r"classes=.*must be a sequence of different names"):
        load_classification(tmp_path, classes=classes)


def test_data_without_any_image_is_an_error(tmp_path):
    (tmp_path / "test" / "a").mkdir(parents=True)
    with (
        pytest.raises(DataError, match=r"holds no image; image extensions are .*\.jpg"),
    ):
        load_classification(tmp_path, classes=["a"])


def test_the_fingerprint_tells_every_change_and_no_place(tmp_path):
    def prints(place):
        make(tmp_path / place, *many("a", 3), *many("b", 3))
        return fingerprint(load_classification(tmp_path / place))

    here = prints("one")
    assert here == prints("two")
    assert len(here) == 64
    seen = {here}

    def changed():
        seen.add(fingerprint(load_classification(tmp_path / "two")))
        return len(seen)

    (tmp_path / "two/a/0.jpg").write_bytes(b"longer than before")
    assert changed() == 2
    (tmp_path / "two/a/0.jpg").rename(tmp_path / "two/a/9.jpg")
    assert changed() == 3
    (tmp_path / "two/a/9.jpg").rename(tmp_path / "two/b/9.jpg")
    assert changed() == 4
    (tmp_path / "two/b/9.jpg").unlink()
    assert changed() == 5
    data = load_classification(tmp_path / "two")
    assert fingerprint(load_classification(tmp_path / "two", seed=5)) != fingerprint(data)
    data.train[0].path.unlink()
    assert fingerprint(data) not in seen
