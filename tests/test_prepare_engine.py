"""`restore prepare`: what interruption, a second run, strangers and hostile archives do to it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepare_trees import (
    Command,
    contents,
    names,
    picture,
    place,
    put,
    refused,
    tarred,
    times,
    zipped,
)

from restore import images
from restore.data.prepare import ledger, source, space
from restore.data.prepare.records import Tiles
from restore.data.prepare.tiles import tiles_of
from restore.data.squares import starts


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def few(root: Path) -> Path:
    return put(root / "down", [f"DIV2K_train_HR/000{n}.png" for n in (1, 2, 3)], 60, 84)


CUT = ("--sub-images", "--crop", 48, "--step", 24)


# Interruption -------------------------------------------------------------------------------------


def test_killed_and_run_again_is_as_if_never_killed(tmp_path: Path) -> None:
    """kill -9 at three places of the real command; what was whole then is not written again."""
    down = put(tmp_path / "down", [f"DIV2K_train_HR/{n:04d}.png" for n in range(8)], 192, 288)
    command = [sys.executable, "-m", "restore.commands", "prepare", "div2k", "--source", str(down)]
    command += ["--sub-images", "--crop", "48", "--step", "48", "--jobs", "2", "--out"]
    quiet = subprocess.DEVNULL
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stderr=quiet, stdout=quiet)
    out = tmp_path / "out"
    for least in (4, 20, 100):
        process = subprocess.Popen([*command, str(out)], stderr=quiet, stdout=quiet)
        while process.poll() is None and sum(len(f) for *_, f in os.walk(out)) < least:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "MANIFEST.json").exists(), "it ended before it was killed"
        done = _journal(out)
        for name in [name for name in names(out) if not name.startswith(".prepare")]:
            images.read(out / name)  # no half file
        stamps = {name: (out / name).stat().st_mtime_ns for name in done}
    subprocess.run([*command, str(out)], check=True, stderr=quiet, stdout=quiet)
    assert contents(out) == contents(tmp_path / "whole")
    assert done and {name: (out / name).stat().st_mtime_ns for name in done} == stamps


def _journal(out: Path) -> list[str]:
    """The files that the journal of a killed run has."""
    found: list[str] = []
    for line in (out / ".prepare/journal.jsonl").read_text().splitlines()[1:]:
        try:
            found += json.loads(line)
        except ValueError:
            break
    return found


@pytest.mark.parametrize("archive", [False, True])
def test_stopped_at_every_single_write(
    prepare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool
) -> None:
    """As if killed before and after each rename in turn: temporary files stay, lines are lost."""
    place_ = few(tmp_path)
    if archive:
        place_ = tarred(place_, tmp_path / "DIV2K.tar.gz")
    words = ("div2k", "--source", place_, "--scales", 2, *CUT, "--jobs", 1, "--out")
    assert prepare(*words, tmp_path / "whole").code == 0
    whole, replace = contents(tmp_path / "whole"), os.replace
    out = tmp_path / "out"
    for kept in range(0, len(whole) + 1, 5):  # some files more each time
        left = iter(range(kept))

        def stop(old: str, new: str, after: bool = bool(kept % 2), left=left) -> None:
            last = next(left, None) is None
            if not last or after:
                replace(old, new)
            if last:
                raise KeyboardInterrupt

        monkeypatch.setattr(ledger.os, "replace", stop)
        assert prepare(*words, out).code in (130, 0)
        monkeypatch.setattr(ledger.os, "replace", replace)
        held = {n: d for n, d in contents(out).items() if not n.startswith(".prepare")}
        assert all(whole[name] == data for name, data in held.items())
    assert prepare(*words, out).code == 0
    assert contents(out) == whole


def test_half_a_line_of_the_journal_is_no_line(prepare: Command, tmp_path: Path) -> None:
    words = ("div2k", "--source", few(tmp_path), "--out")
    assert prepare(*words, tmp_path / "whole").code == 0
    out = tmp_path / "out"
    (out / ".prepare").mkdir(parents=True)
    head = {"set": "div2k", "variant": "", "schema": 1}
    (out / ".prepare/journal.jsonl").write_text(json.dumps(head) + '\n{"DIV2K_train_HR/00')
    (out / ".prepare/3.tmp").write_bytes(b"half")
    assert prepare(*words, out).code == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 40 + b"\n",
        b"[]\n",
        b'"x"\n',
        b'{"a": 1}\n',
        b'{"a": {"size": "x"}}\n',
        b"[" * 9999,
    ],
)
@pytest.mark.parametrize("line", [0, 2])
def test_a_damaged_journal_ends_where_it_is_damaged(
    prepare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int, damage: bytes
) -> None:
    words = ("div2k", "--source", few(tmp_path), "--jobs", 1, "--out")
    assert prepare(*words, tmp_path / "whole").code == 0
    out, journal = tmp_path / "out", tmp_path / "out/.prepare/journal.jsonl"
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ledger.Ledger, "finish", stop)
        assert prepare(*words, out).code == 130
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 4
    journal.write_bytes(b"".join([*lines[:line], damage, *lines[line + 1 :]]))
    assert prepare(*words, out).code == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_a_second_run_writes_nothing(prepare: Command, tmp_path: Path) -> None:
    words = ("div2k", "--source", few(tmp_path), "--out", tmp_path / "out", *CUT)
    assert prepare(*words).code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    answer = prepare(*words)
    assert answer.code == 0 and "nothing left to do" in answer.out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_more_can_be_asked_for_later(prepare: Command, tmp_path: Path) -> None:
    """The rest is added, and the whole is as if asked for at once."""
    words = ("div2k", "--source", few(tmp_path), "--out")
    assert prepare(*words, tmp_path / "whole", *CUT).code == 0
    out = tmp_path / "out"
    assert prepare(*words, out, "--scales", 2).code == 0
    before = times(out)
    assert prepare(*words, out, *CUT).code == 0
    assert {name: times(out)[name] for name in before} == before
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_missing_or_of_another_size_is_made_again(prepare: Command, tmp_path: Path) -> None:
    words = ("div2k", "--source", few(tmp_path), "--out", tmp_path / "out", *CUT)
    assert prepare(*words).code == 0
    whole = contents(tmp_path / "out")
    (tmp_path / "out/DIV2K_train_HR/0001.png").unlink()
    (tmp_path / "out/DIV2K_train_LR_bicubic/X2/0002x2.png").write_bytes(b"short")
    (tmp_path / "out/DIV2K_train_HR_sub/0003_s002.png").unlink()
    assert prepare(*words).code == 0
    assert contents(tmp_path / "out") == whole


def test_other_sub_images_only_once_the_old_ones_are_gone(prepare: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("div2k", "--source", few(tmp_path), "--scales", 2, "--sub-images", "--out")
    assert prepare(*words, out, "--crop", 48, "--step", 24).code == 0
    refused(prepare(*words, out, "--crop", 24, "--step", 24), "DAT16", "48/24/0", "24/24/0")
    shutil.rmtree(out / "DIV2K_train_HR_sub")
    shutil.rmtree(out / "DIV2K_train_LR_bicubic/X2_sub")
    assert prepare(*words, out, "--crop", 24, "--step", 24).code == 0
    assert prepare(*words, tmp_path / "whole", "--crop", 24, "--step", 24).code == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_in_place(prepare: Command, tmp_path: Path) -> None:
    """What already lies in its place is left as it is; the LR are added."""
    out = few(tmp_path)
    before = times(out)
    assert prepare("div2k", "--source", out, "--out", out, "--scales", 2).code == 0
    assert {name: times(out)[name] for name in before} == before
    assert len(names(out)) == 6 and "bicubic" in (out / "MANIFEST.json").read_text()


def test_the_manifest_has_size_and_hash_of_every_file(prepare: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare("div2k", "--source", few(tmp_path), "--out", out, *CUT).code == 0
    held = json.loads((out / "MANIFEST.json").read_text())
    assert (held["set"], held["variant"]) == ("div2k", "")
    assert sorted(held["files"]) == names(out)
    for name, entry in held["files"].items():
        data = (out / name).read_bytes()
        assert entry["size"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    made = {entry.get("made") for entry in held["files"].values()}
    assert "bicubic 1/2 of DIV2K_train_HR/0001.png" in made
    assert "48/24/0 sub-images of DIV2K_train_HR/0001.png" in made
    assert "24/12/0 sub-images of DIV2K_train_LR_bicubic/X2/0001x2.png" in made


# Refusals -----------------------------------------------------------------------------------------


def test_dry_run_writes_nothing(prepare: Command, tmp_path: Path) -> None:
    down, out = few(tmp_path), tmp_path / "out"
    words = ("div2k", "--source", down, "--out", out, "--sub-images")
    answer = prepare(*words, "--dry-run")
    assert answer.code == 0 and not out.exists()
    rows = [line.split() for line in answer.out.splitlines()]
    assert ["DIV2K_train_HR", "copy", "3", "3", "800"] in rows
    assert ["DIV2K_train_LR_bicubic/X4", "bicubic", "1/4", "3", "3", "800"] in rows
    assert ["DIV2K_train_HR_sub", "cut", "3", "3"] in rows
    assert "licence: academic research only" in answer.out and "nothing was written" in answer.out
    assert prepare("div2k", "--source", down, "--out", out).code == 0
    before = contents(out)
    rows = [line.split() for line in prepare(*words, "--dry-run").out.splitlines()]
    assert ["DIV2K_train_HR", "copy", "3", "0", "800"] in rows
    assert contents(out) == before


def test_strangers_in_the_folder_are_left_alone(prepare: Command, tmp_path: Path) -> None:
    down, out = few(tmp_path), tmp_path / "out"
    place(out / "DIV2K_train_HR/0002.png", picture("mine", 8, 8))
    before = (out / "DIV2K_train_HR/0002.png").read_bytes()
    refused(prepare("div2k", "--source", down, "--out", out), "DAT16", "0002.png", "--out")
    assert (out / "DIV2K_train_HR/0002.png").read_bytes() == before
    (out / "DIV2K_train_HR/0002.png").unlink()
    assert prepare("div2k", "--source", down, "--out", out).code == 0
    refused(prepare("df2k", "--source", down, "--out", out), "DAT16", "div2k", "df2k")
    (out / "MANIFEST.json").write_text("[]")
    refused(prepare("div2k", "--source", down, "--out", out), "DAT16", "no manifest of ours")


def test_a_full_disk_is_seen_before_writing(
    prepare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda folder: space.SPARE + 100)
    answer = prepare("div2k", "--source", few(tmp_path), "--out", tmp_path / "out")
    refused(answer, "DAT23", "0.02 GB free")
    assert not (tmp_path / "out").exists()


def test_two_at_a_time_are_refused(prepare: Command, tmp_path: Path) -> None:
    other = ledger.Ledger(tmp_path / "out", "div2k", "")
    other.open()
    try:
        refused(prepare("div2k", "--source", few(tmp_path), "--out", tmp_path / "out"), "DAT25")
    finally:
        other.close()
    assert prepare("div2k", "--source", few(tmp_path), "--out", tmp_path / "out").code == 0


def test_a_bad_image_is_named_and_the_rest_goes_on_later(prepare: Command, tmp_path: Path) -> None:
    down, out = few(tmp_path), tmp_path / "out"
    good = (down / "DIV2K_train_HR/0002.png").read_bytes()
    (down / "DIV2K_train_HR/0002.png").write_bytes(good[:-20])
    refused(prepare("div2k", "--source", down, "--out", out), "IMG03", "0002.png")
    (down / "DIV2K_train_HR/0002.png").write_bytes(good)
    assert prepare("div2k", "--source", down, "--out", out).code == 0
    assert prepare("div2k", "--source", down, "--out", tmp_path / "whole").code == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_an_hr_smaller_than_the_scale(prepare: Command, tmp_path: Path) -> None:
    put(tmp_path / "Set5", ["dot.png"], 3, 9)
    answer = prepare("set5", "--source", tmp_path / "Set5", "--out", tmp_path / "out")
    refused(answer, "DAT07", "dot.png", "9x3")


def test_two_files_for_one_path(prepare: Command, tmp_path: Path) -> None:
    """A download beside its unpacked copy is fine; two different images are not."""
    down = few(tmp_path)
    zipped(down, down / "DIV2K_train_HR.zip")
    assert prepare("div2k", "--source", down, "--out", tmp_path / "out").code == 0
    place(down / "DIV2K_train_HR/0001.png", picture("another", 60, 84))
    answer = prepare("div2k", "--source", down, "--out", tmp_path / "other")
    refused(answer, "DAT15", "DIV2K_train_HR/0001.png")


@pytest.mark.parametrize(
    "words",
    [
        ["div2k"],
        ["div2k", "set5", "--source", "."],
        ["doctor"],
        ["doctor", "demo"],
        ["doctor", "div2x"],
        ["set55", "--source", "."],
        ["set5", "--source", ".", "--variant", "blur"],
        ["gopro", "--source", ".", "--variant", "gamma"],
        ["gopro", "--source", ".", "--scales", "2"],
        ["set5", "--source", ".", "--scales", "5"],
        ["set5", "--source", ".", "--sub-images"],
        ["div2k", "--source", ".", "--sub-images", "--crop", "-12"],
        ["div2k", "--source", ".", "--jobs", "0"],
    ],
)
def test_wrong_words(prepare: Command, words: list[str]) -> None:
    refused(prepare(*words), "OPT40")


def test_a_misspelt_set_is_answered_with_the_nearest(prepare: Command) -> None:
    refused(prepare("gopr", "--source", "."), "OPT40", "did you mean 'gopro'?")


# Archives -----------------------------------------------------------------------------------------

ESCAPES = ("/etc/DIV2K_train_HR/0001.png", "../DIV2K_train_HR/0001.png", "a/../../0001.png")
ESCAPES += ("C:/DIV2K_train_HR/0001.png", "..\\DIV2K_train_HR\\0001.png")


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_leads_out_is_refused(
    prepare: Command, tmp_path: Path, name: str, kind: str
) -> None:
    good = images.encode(picture("good", 24, 36), ".png", "good")
    file = tmp_path / f"DIV2K.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as out:
            out.writestr("DIV2K_train_HR/0002.png", good)
            out.writestr(name, good)
    else:
        with tarfile.open(file, "w") as tar:
            for path in ("DIV2K_train_HR/0002.png", name):
                _add(tar, tarfile.TarInfo(path), good)
    refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT21", "DIV2K")
    assert names(tmp_path) == [file.name]


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, "zip"])
def test_links_and_devices_are_refused(prepare: Command, tmp_path: Path, kind: bytes | str) -> None:
    if kind == "zip":
        file = tmp_path / "DIV2K.zip"
        info = zipfile.ZipInfo("DIV2K_train_HR/0001.png")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(file, "w") as out:
            out.writestr(info, "/etc/passwd")
    else:
        file = tmp_path / "DIV2K.tar"
        entry = tarfile.TarInfo("DIV2K_train_HR/0001.png")
        entry.type, entry.linkname = kind, "/etc/passwd"  # type: ignore[assignment]
        with tarfile.open(file, "w") as tar:
            tar.addfile(entry)
    refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT21", "0001.png, a")
    assert names(tmp_path) == [file.name]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_refused_unread(prepare: Command, tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "bomb"
    (root / "DIV2K_train_HR").mkdir(parents=True)
    (root / "DIV2K_train_HR/0001.png").write_bytes(bytes(40 << 20))
    pack = zipped if suffix == ".zip" else tarred
    file = pack(root, tmp_path / f"DIV2K{suffix}")
    refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT22", "0001.png")


def test_too_large_and_too_many(
    prepare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(few(tmp_path), tmp_path / "DIV2K.zip")
    words = ("div2k", "--source", file, "--out", tmp_path / "out")
    monkeypatch.setattr(source, "MEMBER_LIMIT", 1000)
    refused(prepare(*words), "DAT22", "at most 1000 bytes")
    monkeypatch.undo()
    monkeypatch.setattr(source, "MEMBERS_LIMIT", 2)
    refused(prepare(*words), "DAT22", "over 2 files")


def test_broken_archives(prepare: Command, tmp_path: Path) -> None:
    whole = zipped(few(tmp_path), tmp_path / "DIV2K.zip").read_bytes()
    for number, data in enumerate((b"", whole[: len(whole) // 2], b"<html>no</html>")):
        for suffix in (".zip", ".tar", ".tar.gz"):
            file = tmp_path / f"DIV2K_{number}{suffix}"
            file.write_bytes(data)
            refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT20", file)
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    file = tmp_path / "flipped.zip"
    file.write_bytes(flipped)
    refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT20", "0001.png")
    assert not [name for name in names(tmp_path / "out") if name.endswith("0001.png")]


def test_a_cut_off_tar_gz(prepare: Command, tmp_path: Path) -> None:
    file = tarred(few(tmp_path), tmp_path / "DIV2K.tar.gz")
    file.write_bytes(file.read_bytes()[:-5000])
    refused(prepare("div2k", "--source", file, "--out", tmp_path / "out"), "DAT20", file)


def test_other_sources_are_refused(prepare: Command, tmp_path: Path) -> None:
    refused(prepare("div2k", "--source", tmp_path / "nowhere"), "DAT02", "nothing there")
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    refused(prepare("div2k", "--source", tmp_path / "set.rar"), "DAT02", "another kind")


def test_what_systems_leave_in_archives_is_passed_over(prepare: Command, tmp_path: Path) -> None:
    down = few(tmp_path)
    put(down, ["__MACOSX/DIV2K_train_HR/0001.png", "DIV2K_train_HR/._0001.png"])
    (down / "DIV2K_train_HR/Thumbs.db").write_bytes(b"x")
    file = zipped(down, tmp_path / "DIV2K.zip")
    assert prepare("div2k", "--source", file, "--out", tmp_path / "a", "--scales", 2).code == 0
    assert prepare("div2k", "--source", down, "--out", tmp_path / "b", "--scales", 2).code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(names(tmp_path / "a")) == 6


# Tiles --------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 200), st.integers(1, 200), st.integers(0, 20))
def test_starts_cover_the_side(side: int, crop: int, step: int, threshold: int) -> None:
    found = starts(side, crop, step, threshold)
    assert found[0] == 0 and found == sorted(set(found))
    ends = [min(start + crop, side) for start in found]
    assert all(end <= side for end in ends)
    assert side - ends[-1] <= threshold
    if step <= crop:
        assert all(b <= a for a, b in zip(ends, found[1:], strict=False))


def test_known_counts() -> None:
    """GoPro 8 a frame; SIDD 112 and 88: datasets.md, computed from the official scripts."""
    for (height, width), crop, step, count in (
        ((720, 1280), 512, 256, 8),
        ((3000, 5328), 512, 384, 112),
        ((3024, 4032), 512, 384, 88),
    ):
        image = picture("one", 2, 2)[:1, :1].repeat(height, 0).repeat(width, 1)
        assert sum(1 for _ in tiles_of(image, Tiles("", "", crop, step))) == count


@given(st.integers(100, 400), st.sampled_from([2, 3, 4]))
def test_tiles_of_hr_and_lr_are_the_same_places(side: int, scale: int) -> None:
    """Also where the scale does not divide the side, and LR is of the cut HR."""
    hr, lr = side - side % 12, (side // scale) - (side // scale) % (12 // scale)
    assert lr * scale == hr
    assert [s // scale for s in starts(hr, 48, 24, 0)] == starts(lr, 48 // scale, 24 // scale, 0)
