"""COCO and VOC folders: what is found, what is left out or repaired and said, what is refused."""

import copy
import json
import re

import numpy as np
import pytest
from PIL import Image

from gcnet.data import DataError, DataWarning, load_detection
from gcnet.data.detection.annotations import as_coco, fingerprint

RUNS = {"size": [30, 40], "counts": [40, 10, 1150]}


def coco(images=3, **changes):
    """Three images of 40x30 with a box of each of two categories, whose ids are 3 and 7."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, images + 1)],
        "annotations": [
            {
                "id": 10 * i + category,
                "image_id": i,
                "category_id": category,
                "bbox": [2, 3, 10.5, category],
                "area": 20,
                "iscrowd": 0,
                "segmentation": [[2, 3, 12, 3, 12, 9]],
            }
            for i in range(1, images + 1)
            for category in (3, 7)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    return content | changes


def write(root, content, split="train", pictures=3):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    for index in range(1, pictures + 1):
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / split / f"{index}.png")
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, coco())
    return write(tmp_path, coco(), "val")


def changed(change):
    content = coco()
    change(content)
    return content


def test_a_coco_folder_gives_classes_by_category_id_boxes_as_corners_and_every_object(folder):
    data = load_detection(folder, masks=True)
    assert data.classes == ("dog", "cat")
    assert data.category_ids == (3, 7)
    assert (len(data.train), len(data.val), data.test, data.problems) == (3, 3, (), {})
    image = data.train[1]
    assert (image.path, image.image_id, image.height, image.width) == (folder / "train" / "2.png", 2, 30, 40)
    assert [(one.box, one.label, one.area, one.crowd) for one in image.instances] == [
        ((2.0, 3.0, 12.5, 6.0), 0, 20.0, False),
        ((2.0, 3.0, 12.5, 10.0), 1, 20.0, False),
    ]
    truth = as_coco(data.train, data.classes)
    assert truth["annotations"][1]["bbox"] == [2.0, 3.0, 10.5, 7.0]
    assert [category["name"] for category in truth["categories"]] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("change", "kind", "said", "objects"),
    [
        (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "unsafe path", "'../../etc/passwd'", 4),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), "unsafe path", "never opened", 4),
        (
            lambda c: c["images"][0].update(file_name="gone.png"),
            "missing image",
            "image files do not exist: left out ('gone.png')",
            4,
        ),
        (lambda c: c["images"].append({"id": "x", "file_name": "1.png"}), "bad image entry", "id 'x'", 6),
        (lambda c: c["images"].append(c["images"][0]), "duplicate image", "'1 of 1.png'", 6),
        (lambda c: c["images"][0].pop("width"), "no size", "read from the files", 6),
        (lambda c: c["annotations"][0].update(image_id=99), "unknown image", "annotation 13: image 99", 5),
        (lambda c: c["annotations"][0].update(category_id=4), "unknown category", "annotation 13: category 4", 5),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "bad annotation", "annotation 13", 5),
        (lambda c: c["annotations"].append("text"), "bad annotation", "number 7", 6),
        (lambda c: c["annotations"].append(c["annotations"][0]), "duplicate annotation", "annotation 13", 6),
        (lambda c: c["annotations"][1].update(id=13), "reused id", "annotation 13", 6),
        (lambda c: c["annotations"][0].update(bbox=[1, float("nan"), 3, 4]), "not finite", "13 of 1.png", 5),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), "no area", "annotation 13 of 1.png", 5),
        (lambda c: c["annotations"][0].update(bbox=[50, 2, 5, 4]), "outside", "annotation 13 of 1.png", 5),
        (lambda c: c["annotations"][0].update(bbox=[30, 2, 20, 4]), "reaching out", "clipped to it", 6),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "bad mask", "no polygon of at least", 6),
        (lambda c: c["annotations"][0].update(segmentation=RUNS | {"size": [9, 9]}), "bad mask", "of size", 6),
        (lambda c: c["annotations"][0].update(segmentation=RUNS | {"counts": [9, -1]}), "bad mask", "add up", 6),
        (lambda c: c["annotations"][0].update(segmentation=RUNS | {"counts": "04"}), "bad mask", "add up", 6),
    ],
)
def test_a_fault_is_counted_and_named_and_left_out_or_repaired_and_refused_if_strict(
    tmp_path, change, kind, said, objects
):
    write(tmp_path, changed(change))
    with pytest.warns(DataWarning, match=re.escape(said)):
        data = load_detection(tmp_path, val_fraction=0)
    assert data.problems == {kind: 1}
    assert sum(len(image.instances) for image in data.train) == objects
    ids = [one.id for image in data.train for one in image.instances]
    assert len(set(ids)) == len(ids)
    with pytest.raises(DataError, match=f"strict refuses to repair them: 1 .*{re.escape(said)}"):
        load_detection(tmp_path, strict=True)


def test_a_box_reaching_out_by_more_than_a_pixel_is_clipped_and_one_by_less_stays(tmp_path):
    def reach(content):
        content["annotations"][0]["bbox"] = [30, 2, 20, 4]
        content["annotations"][1]["bbox"] = [30.5, 2, 10, 4]

    write(tmp_path, changed(reach))
    with pytest.warns(DataWarning, match="1 boxes reach out"):
        data = load_detection(tmp_path, val_fraction=0)
    assert [one.box for one in data.train[0].instances] == [(30.0, 2.0, 40.0, 6.0), (30.5, 2.0, 40.5, 6.0)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: [i.update(file_name=f"a/{i['file_name']}") for i in c["images"]], "3 of its 3 images do not exist"),
        (lambda c: [a.update(image_id=a["image_id"] + 5) for a in c["annotations"]], "they belong to another data set"),
        (lambda c: c["categories"].append({"id": 3, "name": "ox"}), "the category id 3 or name 'ox' appears twice"),
        (lambda c: c["categories"].append({"name": "ox"}), "a category without a whole-number id and a name"),
        (lambda c: c.pop("categories"), "is not a COCO file of objects: 'categories' missing"),
        (lambda c: c["images"].clear(), "lists no image"),
    ],
)
def test_annotations_that_cannot_belong_here_are_refused(tmp_path, change, said):
    write(tmp_path, changed(change))
    with pytest.raises(DataError, match=said):
        load_detection(tmp_path)


def test_files_that_are_no_annotations_are_told_apart(folder):
    file = folder / "annotations" / "instances_train.json"
    file.write_text("{")
    with pytest.raises(DataError, match="is not readable JSON: Expecting property name"):
        load_detection(folder)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_detection(folder)
    file.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not readable JSON"):
        load_detection(folder)


def test_other_layouts_and_their_absence(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="does not exist; data must be a folder"):
        load_detection(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"holds no annotations\.\nAllowed layouts"):
        load_detection(empty)
    (folder / "annotations" / "instances_small_train.json").write_text("{}")
    with pytest.raises(DataError, match="holds 2 files for train"):
        load_detection(folder)


def test_roboflow_layout_and_a_validation_part_taken_from_the_training_images(tmp_path):
    (tmp_path / "train").mkdir()
    for index in range(1, 6):
        Image.new("RGB", (40, 30)).save(tmp_path / "train" / f"{index}.png")
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(coco(5)))
    first, again, other = (load_detection(tmp_path, val_fraction=0.4, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.val)) == (3, 2)
    assert {image.path for image in first.train} | {image.path for image in first.val} == {
        tmp_path / "train" / f"{index}.png" for index in range(1, 6)
    }
    assert first == again
    assert first.val != other.val
    with pytest.raises(ValueError, match="val_fraction=1; allowed is 0"):
        load_detection(tmp_path, val_fraction=1)


def test_classes_of_a_trained_model_give_the_labels_and_must_hold_all_categories(folder):
    data = load_detection(folder, classes=["ox", "cat", "dog"])
    assert [one.label for one in data.val[0].instances] == [2, 1]
    with pytest.raises(DataError, match="has categories that are not among the 1 known: 'dog'"):
        load_detection(folder, classes=["cat"])


def test_images_without_objects_are_not_trained_on_and_stay_in_validation(folder):
    content = coco()
    content["annotations"] = content["annotations"][:4]
    write(write(folder, content), content, "val")
    with pytest.warns(DataWarning, match=r"1 training images without any object: left out \('3.png'\)"):
        data = load_detection(folder)
    assert (len(data.train), len(data.val)) == (2, 3)


def test_for_masks_objects_without_one_are_left_out_and_said(folder):
    content = coco()
    del content["annotations"][0]["segmentation"]
    write(folder, content)
    with pytest.warns(DataWarning, match="1 of 6 objects in train have no mask: left out"):
        data = load_detection(folder, masks=True)
    assert len(data.train[0].instances) == 1
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    write(folder, content)
    with pytest.raises(DataError, match="none of the 6 objects in train has a mask; use the task detect"):
        load_detection(folder, masks=True)


def test_the_fingerprint_follows_names_boxes_and_splits(folder):
    before = fingerprint(load_detection(folder))
    assert fingerprint(load_detection(folder)) == before
    content = copy.deepcopy(coco())
    content["annotations"][0]["bbox"][0] = 2.5
    write(folder, content)
    assert fingerprint(load_detection(folder)) != before


XML = """<annotation><filename>{name}</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>10</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    for stem in ("a", "b", "c"):
        Image.new("RGB", (40, 30)).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(XML.format(name=f"{stem}.jpg"))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb 1\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\n")
    return tmp_path


def test_a_voc_folder_counts_pixels_from_one_and_takes_difficult_objects_for_crowds(voc):
    data = load_detection(voc)
    assert data.classes == ("cat", "dog")
    assert [image.path.name for image in data.train] == ["a.jpg", "b.jpg"]
    dog, cat = data.val[0].instances
    assert (dog.box, dog.label, dog.area, dog.crowd) == ((2.0, 3.0, 12.0, 10.0), 1, 70.0, False)
    assert (cat.box, cat.label, cat.crowd) == ((0.0, 0.0, 40.0, 30.0), 0, True)


def test_voc_faults_are_named(voc):
    file = voc / "Annotations" / "a.xml"
    file.write_text(XML.format(name="../../secret.jpg"))
    with pytest.warns(DataWarning, match="lead out of the image folder"):
        assert len(load_detection(voc).train) == 1
    file.write_text(XML.format(name="a.jpg").replace("<xmin>3</xmin>", "<xmin>x</xmin>"))
    with pytest.warns(DataWarning, match="1 boxes hold NaN"):
        load_detection(voc)
    file.write_text(XML.format(name="a.jpg").replace("<xmin>3</xmin>", ""))
    with pytest.warns(DataWarning, match="object 1 of a.xml"):
        load_detection(voc)
    file.write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotation/>')
    with pytest.raises(DataError, match="declares entities or a document type"):
        load_detection(voc)
    file.write_text("<annotation>")
    with pytest.raises(DataError, match="is not readable XML"):
        load_detection(voc)
    file.unlink()
    with pytest.raises(DataError, match="names 1 images without annotations: 'a'"):
        load_detection(voc)


def test_the_real_sets_are_read_whole(shared):
    nuclei = load_detection(shared / "data" / "dsb2018_coco", masks=True)
    assert (len(nuclei.train), len(nuclei.val), nuclei.classes, nuclei.problems) == (406, 101, ("nucleus",), {})
    assert sum(len(image.instances) for image in nuclei.train) == 11_507
    with pytest.warns(DataWarning, match="1 training images without any object"):
        mini = load_detection(shared / "data" / "coco_mini", masks=True)
    assert (len(mini.val), len(mini.classes), mini.category_ids[11], mini.problems) == (91, 80, 13, {})
