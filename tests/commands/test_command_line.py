"""The command line: help without delay, mistakes in one line, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restore import __version__
from restore.commands.main import COMMANDS, main

from helpers import TINY_TRAIN

ROOT = Path(__file__).resolve().parents[2]

TEST = """\
name: tiny_test
scale: 3
datasets:
  test_1: {type: SingleImageDataset, dataroot_lq: lq}
network_g: {type: SPAN, feature_channels: 8, upscale: 3}
"""


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )


HEAVY = """
import sys
from restore.commands.main import main
code = main(sys.argv[1:])
heavy = {"torch", "numpy", "cv2", "pydantic", "yaml"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_names_every_command_and_imports_nothing_heavy(argument: str) -> None:
    result = python(HEAVY, argument)
    assert (result.returncode, result.stderr) == (0, "")
    listed = [line.split() for line in result.stdout.splitlines() if line.startswith("  ")]
    assert [words[0] for words in listed] == list(COMMANDS)
    assert [" ".join(words[1:]) for words in listed] == list(COMMANDS.values())


def test_version_imports_nothing_heavy() -> None:
    result = python(HEAVY, "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{__version__}\n", "")


def test_unknown_command_imports_nothing_heavy() -> None:
    result = python(HEAVY, "tain")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error[OPT40]: unknown command (restore): got 'tain'; "
        f"expected one of {', '.join(COMMANDS)}; fix: did you mean 'train'?\n"
    )


def test_no_command_is_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: restore <command>")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert out.startswith(f"usage: restore {command}") and "--debug" in out


def test_the_installed_command_is_main() -> None:
    installed = Path(sys.executable).parent / "restore"
    if not installed.exists():
        pytest.skip("the package is not installed in this environment")
    result = subprocess.run([installed, "nope"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and result.stderr.startswith("error[OPT40]: unknown command")


@pytest.mark.parametrize(
    "arguments, line",
    [
        (
            ["train"],
            "error[OPT40]: wrong command line (restore train): "
            "got the following arguments are required: -opt/--opt; expected see --help; "
            "fix: restore train --help",
        ),
        (
            ["test", "-opt"],
            "error[OPT40]: wrong command line (restore test): "
            "got argument -opt/--opt: expected one argument; expected see --help; "
            "fix: restore test --help",
        ),
        (
            ["train", "-opt", "x.yml", "--auto_resum"],
            "error[OPT40]: wrong command line (restore train): "
            "got unrecognized arguments: --auto_resum; expected see --help; "
            "fix: restore train --help",
        ),
        (
            ["train", "-opt", "x.yml", "--auto_resume", "--overwrite"],
            "error[OPT40]: wrong command line (restore train): got argument --overwrite: "
            "not allowed with argument --auto_resume; expected see --help; "
            "fix: restore train --help",
        ),
        (
            ["train", "-opt", "x.yml", "--local_rank=two"],
            "error[OPT40]: wrong command line (restore train): got argument "
            "--local_rank/--local-rank: invalid int value: 'two'; expected see --help; "
            "fix: restore train --help",
        ),
    ],
)
def test_wrong_command_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("spelling", ["--local_rank=3", "--local-rank=3", "--local-rank 3"])
def test_both_spellings_of_local_rank(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The old launcher appends one of them; the option file is looked at all the same."""
    assert main(["train", "-opt", "nope.yml", *spelling.split()]) == 2
    assert capsys.readouterr().err.startswith("error[OPT01]: option file not found (nope.yml)")


@pytest.mark.parametrize("spelling", ["-opt nope.yml", "--opt nope.yml", "--opt=nope.yml"])
@pytest.mark.parametrize("command", ["train", "test"])
def test_both_spellings_of_opt(
    command: str, spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *spelling.split()]) == 2
    assert capsys.readouterr().err.startswith("error[OPT01]: option file not found (nope.yml)")


def test_set_and_force_yml(capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yml").write_text(TINY_TRAIN)
    arguments = ["--set", "nam=x", "scale=two", "--force_yml", "train:totl_iter=5", "--set", "a=1"]
    assert main(["check", "tiny.yml", *arguments]) == 2
    found = {line.partition(" ")[0] + line.partition("(")[2].partition(")")[0]
             for line in capsys.readouterr().err.splitlines()}  # fmt: skip
    assert found == {
        "error[OPT11]:--set nam=x nam",
        "error[OPT17]:--set scale=two scale",
        "error[OPT11]:--set train:totl_iter=5 train.totl_iter",
        "error[OPT11]:--set a=1 a",
    }


def test_debug_shows_the_traceback_and_the_same_exit_code() -> None:
    code = "import sys; from restore.commands.main import main; sys.exit(main())"
    plain = python(code, "train", "-opt", "nope.yml")
    debug = python(code, "train", "-opt", "nope.yml", "--debug")
    assert plain.returncode == debug.returncode == 2
    assert plain.stderr.startswith("error[OPT01]") and plain.stderr.count("\n") == 1
    assert debug.stderr.startswith("Traceback") and "in read_document" in debug.stderr
    assert debug.stderr.endswith(f"OptionError: {plain.stderr}")


def test_check_of_good_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yml").write_text(TINY_TRAIN)
    Path("b.yml").write_text(TEST)
    assert main(["check", "a.yml", "b.yml"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "ok  a.yml: train SPAN ×2, 12,460 parameters deployed, 52,980 while training",
        "ok  b.yml: test SPAN ×3, 13,555 parameters deployed, 54,075 while training",
    ]
    assert sorted(os.listdir()) == ["a.yml", "b.yml"]


def test_check_tells_all_problems_of_all_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.yml").write_text(TEST)
    Path("bad1.yml").write_text(
        TINY_TRAIN.replace("name: tiny", "name: 1").replace("gt: gt", "gt: 2")
    )
    Path("bad2.yml").write_text(TEST.replace("scale: 3\nd", "scale: 2\nd"))
    Path("bad3.yml").write_text("a: [")
    assert main(["check", "bad1.yml", "good.yml", "nope.yml", "bad2.yml", "bad3.yml"]) == 2
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["ok  good.yml"]
    assert [line[6:11] + line.partition("(")[2].partition(")")[0] for line in err.splitlines()] == [
        "OPT16bad1.yml:1 name",
        "OPT16bad1.yml:6 datasets.train.dataroot_gt",
        "OPT01nope.yml",
        "OPT33bad2.yml:2 scale",
        "OPT04bad3.yml:1:5",
    ]


def test_a_file_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "x\nerror[OPT99]: forged\x1b[31m"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error[OPT01]: option file not found (x\\nerror[OPT99]: forged\\x1b[31m): "
        "got no such file; expected a YAML file; fix: check the path after -opt"
    ]


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("restore.commands.check._check", interrupted)
    assert main(["check", "a.yml"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        main(["check", "a.yml", "--debug"])


def test_train_py_and_test_py_are_the_commands() -> None:
    for script, prog in (("train.py", "restore train"), ("test.py", "restore test")):
        result = subprocess.run(
            [sys.executable, ROOT / script], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 2
        assert result.stderr.startswith(f"error[OPT40]: wrong command line ({prog})")
