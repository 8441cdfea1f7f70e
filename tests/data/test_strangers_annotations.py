"""Annotations as other programs write them: read as they are meant, or said; what is held out never trains."""

import json
import os
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from gcnet.data import DataError, DataWarning, load_classification, load_detection, read_image
from gcnet.data.detection.datasets import DetectionDataset
from gcnet.data.detection.transforms import detection_eval_transform
from gcnet.data.listing import images_in

RUNS = {"size": [30, 40], "counts": [0, 1200]}


def picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def coco(root, images=3, ids=(1,), split="train", **changes):
    """Pictures with an object of each category; `changes` go into each annotation."""
    for index in range(images):
        picture(root / split / f"{index}.png")
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(images)],
        "annotations": [
            {"id": 10 * i + c, "image_id": i, "category_id": c, "bbox": [2, 3, 10, 9], "iscrowd": 0, "area": 90}
            | changes
            for i in range(images)
            for c in ids
        ],
        "categories": [{"id": c, "name": f"kind{c}"} for c in ids],
    }


def write(root, content, split="train"):
    (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def voc(root, stem, *, name=None, kind="car", difficult="0", folder=""):
    picture(root / "JPEGImages" / f"{folder}{stem}.jpg")
    file = root / "Annotations" / f"{folder}{stem}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = (
        f"<annotation><filename>{name or stem + '.jpg'}</filename><size><width>40</width><height>30</height></size>"
        f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>3</xmin><ymin>4</ymin>"
        "<xmax>12</xmax><ymax>10</ymax></bndbox></object></annotation>"
    )
    file.write_text(text)
    return text


@pytest.mark.parametrize("ids", [(0, 1), (0, 7), (5, 0)])
def test_category_ids_are_those_of_the_file_also_where_one_is_0(tmp_path, ids):
    data = load_detection(write(tmp_path, coco(tmp_path, ids=ids)), val_fraction=0)
    assert [f"kind{number}" for number in data.category_ids] == list(data.classes)


def test_the_root_category_of_roboflow_is_no_class(tmp_path):
    content = coco(tmp_path, ids=(1, 2))
    content["categories"] = [{"id": 0, "name": "cells", "supercategory": "none"}] + [
        category | {"supercategory": "cells"} for category in content["categories"]
    ]
    assert load_detection(write(tmp_path, content), val_fraction=0).classes == ("kind1", "kind2")
    content["annotations"][0]["category_id"] = 0  # used: a class like others
    assert load_detection(write(tmp_path, content), val_fraction=0).classes == ("cells", "kind1", "kind2")


@pytest.mark.parametrize("key", ["category_id", "image_id"])
def test_whole_numbers_with_a_point_are_ids(tmp_path, key):
    content = coco(tmp_path)
    for entry in content["annotations"]:
        entry[key] = float(entry[key])
    data = load_detection(write(tmp_path, content), val_fraction=0)
    assert sum(len(image.instances) for image in data.train) == 3


def test_one_picture_under_two_ids_is_one_image_with_all_its_objects(tmp_path):
    content = coco(tmp_path)
    content["images"].append({"id": 9, "file_name": "0.png", "width": 40, "height": 30})
    content["annotations"].append(content["annotations"][0] | {"id": 99, "image_id": 9, "bbox": [1, 1, 5, 5]})
    with pytest.warns(DataWarning, match=r"1 images are listed twice.*'0.png: 0 and 9'"):
        data = load_detection(write(tmp_path, content), val_fraction=0)
    assert [len(image.instances) for image in data.train] == [2, 1, 1]


def test_a_picture_in_two_parts_is_not_trained_with(tmp_path):
    content = coco(tmp_path)
    held = coco(tmp_path, 1, split="valid")
    held["images"][0]["file_name"] = "../train/0.png"
    (tmp_path / "annotations").mkdir()
    for split, one in (("train", content), ("val", held)):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(one))
    for entry in held["images"] + content["images"]:
        entry["file_name"] = f"train/{entry['file_name'].rpartition('/')[2]}"
    for split, one in (("train", content), ("val", held)):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(one))
    with pytest.warns(DataWarning, match=r"1 images are in train and are held out, too: not trained with \('0.png'\)"):
        data = load_detection(tmp_path)
    assert (len(data.train), len(data.val)) == (2, 1)


def test_boxes_that_are_fractions_of_the_image_are_refused(tmp_path):
    with pytest.raises(
        DataError, match="all 3 boxes lie between 0 and 1, in images of up to 40 pixels: these are frac"
    ):
        load_detection(write(tmp_path, coco(tmp_path, bbox=[0.1, 0.2, 0.3, 0.3])))


def test_a_broken_polygon_beside_others_is_counted_and_refused_by_strict(tmp_path):
    write(tmp_path, coco(tmp_path, segmentation=[[2, 3, 12, 3, 12, 9], [14, 14, 20]]))
    with pytest.warns(DataWarning, match=r"3 masks have a polygon that cannot be read.*annotation 1: 1 of 2"):
        data = load_detection(tmp_path, masks=True, val_fraction=0)
    assert data.problems == {"broken polygon": 3}
    with pytest.raises(DataError, match="strict refuses"):
        load_detection(tmp_path, masks=True, strict=True)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (RUNS | {"counts": "o" * 1_000_000}, "more text than pixels can need"),
        (RUNS | {"counts": "o" * 5000}, "a compressed number without an end"),
        (RUNS | {"counts": "1" * 5000}, "more run lengths than pixels"),
        (RUNS | {"counts": [0] * 5000}, "more run lengths than pixels"),
        ([[0, 0, 600, 0] * 100_000], "an outline that is a thousand times as long"),
    ],
)
def test_masks_that_would_take_minutes_are_left_out_at_once(tmp_path, mask, said):
    content = coco(tmp_path, segmentation=[[2, 3, 12, 3, 12, 9]])
    content["annotations"][0]["segmentation"] = mask
    write(tmp_path, content)
    began = time.process_time()
    with pytest.warns(DataWarning, match=said):
        load_detection(tmp_path, val_fraction=0)
    assert time.process_time() - began < 10


def test_only_crowds_to_learn_from_are_refused_and_to_find_are_said(tmp_path):
    write(tmp_path, coco(tmp_path, iscrowd=1))
    with pytest.raises(DataError, match=r"each of the 3 objects in train is a crowd .* of which nothing is learnt"):
        load_detection(tmp_path)
    write(tmp_path, coco(tmp_path))
    write(tmp_path, coco(tmp_path, split="valid", iscrowd=1), "valid")
    with pytest.warns(DataWarning, match="each of the 3 objects in val is a crowd"):
        load_detection(tmp_path)


@pytest.mark.parametrize("below", ["", "default/"])
def test_the_one_part_of_cvat_is_for_training(tmp_path, below):
    content = coco(tmp_path, 4, split=f"images/{below}")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_default.json").write_text(json.dumps(content))
    data = load_detection(tmp_path, val_fraction=0.25)
    assert (len(data.train), len(data.val)) == (3, 1)
    (tmp_path / "annotations" / "instances_other.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"'instances_default.json', 'instances_other.json' do not"):
        load_detection(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_in_the_encodings_of_other_systems(tmp_path, encoding):
    content = json.dumps(coco(tmp_path), ensure_ascii=False)
    (tmp_path / "train" / "_annotations.coco.json").write_bytes(content.encode(encoding))
    assert len(load_detection(tmp_path, val_fraction=0).train) == 3


def test_sizes_of_an_image_as_it_is_stored_fit_its_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = coco(tmp_path, 1)
    Image.fromarray(np.arange(3600, dtype=np.uint8).reshape(30, 40, 3)).save(tmp_path / "train" / "0.png", exif=exif)
    data = load_detection(write(tmp_path, content), val_fraction=0)
    item = DetectionDataset(data.train, detection_eval_transform())[0]
    assert item.error is None
    assert item.image.shape == (3, 30, 40)
    assert read_image(tmp_path / "train" / "0.png").size == (30, 40)


@pytest.mark.parametrize("wrong", [{"id": [1]}, {"bbox": [1, 2, 10**400, 4]}, {"area": 10**400}, {"iscrowd": []}])
def test_numbers_of_other_kinds_and_sizes_cost_at_most_their_object(tmp_path, wrong):
    content = coco(tmp_path)
    content["annotations"][0] |= wrong
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load_detection(write(tmp_path, content), val_fraction=0)
    assert sum(len(image.instances) for image in data.train) >= 2


# VOC


def test_an_xml_file_belongs_to_the_image_of_its_own_name(tmp_path):
    for stem in ("a", "b", "c"):
        voc(tmp_path, stem, name="a.jpg" if stem == "b" else None, kind="boat" if stem == "b" else "car")
    with pytest.warns(DataWarning, match=r"1 XML files name another image.*'b.xml: a.jpg'"):
        data = load_detection(tmp_path, val_fraction=0)
    found = {image.path.name: data.classes[image.instances[0].label] for image in data.train}
    assert found == {"a.jpg": "car", "b.jpg": "boat", "c.jpg": "car"}


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"trainval": "abc"}, "abc", ""),
        ({"trainval": "abc", "test": "de"}, "abc", "de"),
        ({"test": "de"}, "abc", "de"),
        ({"train": "ab", "trainval": "abc", "test": "de"}, "ab", "de"),
    ],
)
def test_lists_that_are_there_are_used_and_what_they_hold_out_never_trains(tmp_path, lists, train, test):
    for stem in "abcde":
        voc(tmp_path, stem)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name, stems in lists.items():
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems))
    data = load_detection(tmp_path, val_fraction=0)
    parts = ["".join(sorted(image.path.stem for image in part)) for part in (data.train, data.test)]
    assert parts == [train, test]


def test_an_image_that_is_held_out_and_listed_for_training_is_said_and_held_out(tmp_path):
    for stem in "abc":
        voc(tmp_path, stem)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\nc\n")
    with pytest.warns(DataWarning, match=r"1 images are held out and in the list for training.*'b'"):
        data = load_detection(tmp_path)
    assert [image.path.stem for image in data.train] == ["a"]


@pytest.mark.parametrize(
    ("word", "crowd"), [("1", 1), ("true", 1), ("Yes", 1), ("1.0", 1), ("0", 0), ("no", 0), ("False", 0), ("", 0)]
)
def test_difficult_is_understood_in_words(tmp_path, word, crowd):
    voc(tmp_path, "a", difficult=word)
    voc(tmp_path, "b")
    data = load_detection(tmp_path, val_fraction=0)
    assert [image.instances[0].crowd for image in data.train] == [bool(crowd), False]


def test_a_word_that_is_neither_yes_nor_no_is_said(tmp_path):
    voc(tmp_path, "a", difficult="perhaps")
    voc(tmp_path, "b")
    with pytest.warns(DataWarning, match="'object 1 of a.xml: 'perhaps''|perhaps"):
        assert load_detection(tmp_path, val_fraction=0).problems == {"difficult or not": 1}


def test_folders_below_are_read_and_extensions_may_be_in_capitals(tmp_path):
    voc(tmp_path, "a")
    voc(tmp_path, "b", folder="evening/", name="evening/b.jpg")
    voc(tmp_path, "c")
    (tmp_path / "JPEGImages" / "c.jpg").rename(tmp_path / "JPEGImages" / "c.JPG")
    (tmp_path / "Annotations" / "._a.xml").write_bytes(b"\0\5\x16\7")
    data = load_detection(tmp_path, val_fraction=0)
    assert [image.path.name for image in data.train] == ["a.jpg", "c.JPG", "b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb2312", "latin-1"])
def test_xml_is_read_in_its_encoding_and_entities_are_refused_in_all(tmp_path, encoding):
    name = "é" if encoding == "latin-1" else "车"
    text = voc(tmp_path, "a").replace("car", name)
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    (tmp_path / "Annotations" / "a.xml").write_bytes((declared + text).encode(encoding))
    voc(tmp_path, "b")
    assert name in load_detection(tmp_path, val_fraction=0).classes
    hostile = declared + '<!DOCTYPE x [<!ENTITY a "boom">]>' + text.replace(name, "&a;")
    (tmp_path / "Annotations" / "a.xml").write_bytes(hostile.encode(encoding))
    with pytest.raises(DataError, match=r"a.xml declares entities or a document type"):
        load_detection(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<a", b"\xff\xfe\xff", b'<?xml version="1.0" encoding="none"?><a/>', b"\0" * 9]
)
def test_xml_that_cannot_be_read_is_named(tmp_path, content):
    voc(tmp_path, "b")
    (tmp_path / "Annotations" / "a.xml").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.xml is not (readable XML|text in its encoding)"):
        load_detection(tmp_path)


def test_xml_of_megabytes_is_refused(tmp_path):
    voc(tmp_path, "b")
    (tmp_path / "Annotations" / "a.xml").write_bytes(b"<a>" + b"<b/>" * 1_000_001)
    with pytest.raises(DataError, match="has 4,000,007 bytes"):
        load_detection(tmp_path)


# Folders


@pytest.mark.parametrize(("first", "second"), [("Training", "Testing"), ("train_set", "test_set"), ("train", "test")])
def test_the_parts_of_a_folder_have_many_names(tmp_path, first, second):
    for part in (first, second):
        for name in ("dark", "light"):
            for index in range(3):
                picture(tmp_path / part / name / f"{index}.png")
    data = load_classification(tmp_path, val_fraction=0)
    assert (data.classes, len(data.train), len(data.test)) == (("dark", "light"), 6, 6)


def test_folders_that_hold_the_same_folders_are_said_to_look_like_parts(tmp_path):
    for part in ("first", "second"):
        for name in ("dark", "light"):
            picture(tmp_path / part / name / "0.png")
            picture(tmp_path / part / name / "1.png")
    with pytest.warns(DataWarning, match="'first', 'second' are taken for classes, though each holds the same folders"):
        load_classification(tmp_path)


def test_links_that_lead_out_are_not_followed_and_said(tmp_path):
    secret = picture(tmp_path / "home" / "private.png")
    for name in ("a", "b"):
        for index in range(3):
            picture(tmp_path / "set" / name / f"{index}.png")
    os.symlink(secret, tmp_path / "set" / "a" / "link.png")
    os.symlink(secret.parent, tmp_path / "set" / "b" / "more")
    os.symlink(tmp_path / "set" / "b" / "0.png", tmp_path / "set" / "b" / "inside.png")
    with pytest.warns(DataWarning, match=r"2 links lead out of it and are not followed \('link.png', 'more'\)"):
        data = load_classification(tmp_path / "set", val_fraction=0)
    assert [sample.path.name for sample in data.train] == ["0.png", "1.png", "2.png"] * 2 + ["inside.png"]
    content = coco(tmp_path / "coco")
    os.remove(tmp_path / "coco" / "train" / "0.png")
    os.symlink(secret, tmp_path / "coco" / "train" / "0.png")
    with pytest.warns(DataWarning, match=r"1 file names lead out of the image folder"):
        data = load_detection(write(tmp_path / "coco", content), val_fraction=0)
    assert len(data.train) == 2


def test_one_rule_says_what_a_folder_of_images_holds(tmp_path):
    for name in ("b.png", "a.PNG", "deep/c.jpg", ".thumb.png", ".ipynb_checkpoints/b.png", "__MACOSX/b.png", "._b.png"):
        picture(tmp_path / name)
    (tmp_path / "note.txt").write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == ["a.PNG", "b.png", "deep/c.jpg"]


# Pictures


@pytest.mark.parametrize(("highest", "bits"), [(255, 8), (4095, 12), (3000, 12), (4096, 16), (65535, 16)])
def test_values_are_scaled_by_the_bits_that_a_file_uses_and_it_is_said(tmp_path, highest, bits):
    values = np.linspace(0, highest, 64).reshape(8, 8).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = np.asarray(read_image(tmp_path / "a.png"))[..., 0]
    assert np.abs(found.astype(float) - values / (2**bits - 1) * 255).max() <= 0.5
    assert [f"{bits}-bit" in str(one.message) for one in said] == ([True] if bits < 16 else [])


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path):
    side = 9000
    Image.new("L", (side, side)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"9000 x 9000 in so small a file would take 486 MB of memory to read"):
        read_image(tmp_path / "a.png")
