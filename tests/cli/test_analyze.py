"""gcnet analyze."""

import json

from gcnet.recipes import analyze

VIT = "timm/test_vit"


def test_the_table_of_a_run_names_its_blocks_and_the_verdicts(gcnet_command, run_folder, photos, tmp_path):
    path = tmp_path / "figures.json"
    result = gcnet_command("analyze", run_folder, photos / "test", photos / "val", "--json", path)
    assert result.exit_code == 0, result.stderr
    for word in ("ResNet, 4 images", "GlobalContext", "query-independent: GC would do", f"written: {path}"):
        assert word in result.stdout
    data = json.loads(path.read_text())
    assert data["images"] == 4
    assert data["table"][0]["att_cos"] == 0
    assert {row["class"] for row in data["per_class"]} <= {"red", "blue"}
    assert data["verdicts"][data["table"][0]["block"]]["independent_below"] > 0


def test_a_model_by_name_a_limit_and_broken_files(gcnet_command, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    result = gcnet_command("analyze", VIT, photos, "--limit", "2")
    assert result.exit_code == 0, result.stderr
    assert "2 images" in result.stdout
    assert "Attention" in result.stdout
    result = gcnet_command("analyze", VIT, broken, photos / "test")
    assert result.exit_code == 1
    assert "2 images" in result.stdout
    assert f"gcnet: {broken}: is empty (0 bytes)" in result.stderr


def test_out_writes_the_report_or_a_figure_and_says_so(gcnet_command, run_folder, photos, tmp_path):
    for name in ("report.html", "maps.png"):
        result = gcnet_command("analyze", run_folder, photos / "test", "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert f"written: {tmp_path / name}" in result.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "red/0.png" in page
    assert str(photos) not in page
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    result = gcnet_command("analyze", tmp_path / "no model", photos, "--out", tmp_path / "report.txt")  # said first
    assert result.exit_code == 1
    assert "use .html for the report, .png or .pdf for a figure" in result.stderr


def test_what_cannot_be_analysed_is_one_line_and_exit_code_1(gcnet_command, photos, run_folder, tmp_path):
    for arguments, said in (
        (("timm/test_resnet", photos), "holds no attention that analyze can read"),
        ((VIT, tmp_path), "images: none given, and none in the folders given"),
        ((run_folder, photos, "--weights", "imagenet"), "has its own; leave it out"),
        ((tmp_path / "no.safetensors", photos), "there is no file"),
    ):
        result = gcnet_command("analyze", *arguments)
        assert result.exit_code == 1, arguments
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert gcnet_command("analyze", VIT).exit_code == 2


def test_a_model_of_scenes_is_analysed_on_scenes(monkeypatch, tmp_path):
    import gcnet

    model = gcnet.create_model("scenes", num_classes=6, block="nl")
    gcnet.save_checkpoint(model, tmp_path / "scenes.safetensors")
    found = analyze(tmp_path / "scenes.safetensors", "mirror", limit=3, keep=2)
    assert [row["block"] for row in found.table] == list(gcnet.inserted(model))
    assert (found.images, len(found.kept)) == (3, 2)
