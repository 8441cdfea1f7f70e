"""gcnet: the commands there are, their help, exit codes, and how fast it answers."""

import subprocess
import sys
from functools import partial

import pytest
import typer

import gcnet
from gcnet.cli import COMMANDS
from gcnet.cli.errors import one_line, reported
from gcnet.errors import GcnetError

NAMES = (
    *("demo", "train", "evaluate", "predict", "compare", "analyze"),
    *("blocks", "profile", "fold", "simplify", "export", "convert"),
)


def test_the_help_lists_every_command_and_loads_neither_torch_nor_lightning():
    program = (
        "import sys; sys.argv = ['gcnet', '--help']\n"
        "from gcnet.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lightning', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for name in NAMES:
        assert f" {name} " in result.stdout


def test_the_commands_are_these():
    assert tuple(command.__name__ for command in COMMANDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(gcnet_command, name):
    result = gcnet_command(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: gcnet {name}" in result.stdout


def test_the_version(gcnet_command):
    result = gcnet_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"gcnet {gcnet.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["levitate"], ["train", "--levitate"], ["predict"], ["train", "--epochs", "few"]]
)
def test_wrong_usage_is_exit_code_2(gcnet_command, arguments):
    assert gcnet_command(*arguments).exit_code == 2


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.png"), "gcnet: No such file or directory: a.png\n"),
        (OSError(28, "could not write a: the disk is full"), "gcnet: could not write a: the disk is full\n"),
        (ModuleNotFoundError("x", name="lightning"), "gcnet: lightning is not installed: pip install 'gcnet[train]'\n"),
        (KeyboardInterrupt(), "gcnet: interrupted\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line_on_stderr(capsys, error, said):
    with pytest.raises(typer.Exit) as caught:
        reported(partial(_raise, error))()
    assert caught.value.exit_code == 1
    assert capsys.readouterr() == ("", said)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        reported(lambda: 1 / 0)()
    with pytest.raises(ValueError, match="invalid literal"):
        reported(lambda: int("x"))()  # not raised by gcnet: nobody wrote this message for the user


def test_errors_that_gcnet_raises_in_words_are_for_the_user():
    with pytest.raises(ValueError) as caught:
        gcnet.create_model("resnet5", num_classes=2)
    assert isinstance(caught.value, GcnetError)
    with pytest.raises(typer.Exit):
        reported(partial(_raise, caught.value))()
    assert one_line(ValueError("two\n  lines")) == "two lines"


def test_a_warning_is_a_line_of_its_own(capsys):
    import warnings

    def noisy():
        warnings.simplefilter("default")
        warnings.warn("a folder\nis empty", UserWarning)

    reported(noisy)()
    assert capsys.readouterr().err == "gcnet: note: a folder is empty\n"
