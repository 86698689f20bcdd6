"""Weights files: every layout that is read, every file that is refused, and what is written."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from restore.archs import build_network, load_weights
from restore.archs.span import SPAN
from restore.archs.table import ARCHS
from restore.archs.weights import (
    about_weights,
    describe,
    official_state,
    read_weights,
    state_sha256,
    write_safetensors,
)
from restore.errors import WeightsError


def span(seed: int, channels: int = 4, upscale: int = 2) -> SPAN:
    torch.manual_seed(seed)
    network = build_network({"type": "SPAN", "feature_channels": channels, "upscale": upscale})
    assert isinstance(network, SPAN)
    return network


STATE = span(1).state_dict()
OTHER = span(2).state_dict()
KEYS = list(STATE)


def holds(network: SPAN, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def saved(folder: Path, content: object, **how: Any) -> Path:
    file = folder / "net.pth"
    torch.save(content, file, **how)
    return file


def refusal(act: Callable[[], object], code: str, *words: str) -> str:
    """The message of the one problem that `act` is refused with."""
    with pytest.raises(WeightsError) as caught:
        act()
    (problem,) = caught.value.problems
    assert problem.code == code, problem
    assert all(word in str(problem) for word in words), str(problem)
    return str(problem)


# What is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "container"),
    [
        (STATE, ""),
        ({"params": STATE}, "params"),
        ({"params_ema": STATE}, "params_ema"),
        ({"params": OTHER, "params_ema": STATE}, "params_ema"),
        ({"params_ema": STATE, "params": OTHER}, "params_ema"),
        ({"state_dict": STATE, "epoch": 3, "loss": [0.1]}, "state_dict"),
        ({"model": STATE, "optimizer": {"state": {}}}, "model"),
        ({"net_g": STATE}, "net_g"),
    ],
)
def test_containers(tmp_path: Path, content: dict[str, Any], container: str, zipped: bool) -> None:
    file = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    network = span(0)
    report = load_weights(network, file)
    assert holds(network, STATE)
    assert (report.container, report.prefix, report.loaded) == (container, "", len(STATE))
    assert report.missing == report.unexpected == report.mismatched == report.ignored == ()


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net_g.", "generator.", "module.net_g.", "model.module.model."]
)
def test_prefixes(prefix: str) -> None:
    network = span(0)
    report = load_weights(network, {"params": prefixed(prefix)})
    assert holds(network, STATE) and report.prefix == prefix


def test_a_prefix_that_only_some_keys_carry_stays() -> None:
    first, *rest = KEYS
    mixed = {f"module.{first}": STATE[first], **{f"other.{key}": STATE[key] for key in rest}}
    network = span(0)
    before = state_sha256(network.state_dict())
    refusal(lambda: load_weights(network, mixed), "WGT09", "164 missing", "164 unexpected")
    assert state_sha256(network.state_dict()) == before


def test_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file(STATE, file)
    network = span(0)
    report = load_weights(network, str(file))
    assert holds(network, STATE) and report.source == str(file)
    assert about_weights(file) == {}


def test_the_fused_copy_of_official_files_is_accepted_and_never_used() -> None:
    network = span(0)
    for wrong in (7.0, float("nan")):
        official = official_state(span(1))
        stale = [key for key in official if ".eval_conv." in key]
        for key in stale:
            official[key] = torch.full_like(official[key], wrong)
        report = load_weights(network, {"params": official})
        assert holds(network, STATE)
        assert report.ignored == tuple(stale) and len(stale) == 40
    fresh = official_state(span(1))
    assert all(torch.equal(value, fresh[key]) for key, value in official_state(network).items())


def test_key_names_the_container(tmp_path: Path) -> None:
    file = saved(tmp_path, {"params": STATE, "params_ema": OTHER})
    network = span(0)
    load_weights(network, file, key="params")
    assert holds(network, STATE)
    load_weights(network, file, key="params_ema")
    assert holds(network, OTHER)
    # BasicSR's own fallback, and no other
    assert load_weights(network, {"params": STATE}, key="params_ema").container == "params"
    assert holds(network, STATE)
    text = refusal(
        lambda: load_weights(network, {"params_ema": OTHER}, key="params"), "WGT11", "'params'"
    )
    assert "got params_ema" in text and "param_key_g" in text
    refusal(lambda: load_weights(network, STATE, key="params"), "WGT11", "a bare state dict")
    assert holds(network, STATE)


# What does not fit --------------------------------------------------------------------------------


def test_the_strict_report_is_exact() -> None:
    broken = dict(STATE)
    for key in KEYS[:12]:
        del broken[key]
    broken["conv_cat.weight"] = torch.zeros(4, 15, 1, 1)
    broken |= {"extra.a": torch.zeros(1), "extra.b": torch.zeros(2)}
    network = span(0)
    before = state_sha256(network.state_dict())
    text = refusal(lambda: load_weights(network, broken), "WGT09")
    assert text == (
        "error[WGT09]: weights do not fit the network (state dict): got 12 missing: "
        + ", ".join(KEYS[:10])
        + ", … (2 more); 2 unexpected: extra.a, extra.b; 1 of another shape (file ≠ network): "
        "conv_cat.weight (4, 15, 1, 1) ≠ (4, 16, 1, 1); expected exactly the network's keys and "
        "shapes; fix: check type, width and scale of network_g, or set path.strict_load_g: false"
    )
    assert state_sha256(network.state_dict()) == before


def test_ten_keys_are_listed_without_more() -> None:
    few = {key: STATE[key] for key in KEYS[10:]}
    text = refusal(lambda: load_weights(span(0), few), "WGT09", f"10 missing: {KEYS[0]}", KEYS[9])
    assert "more)" not in text


@pytest.mark.parametrize(("channels", "upscale", "shapes"), [(5, 2, 161), (4, 3, 2)])
def test_another_width_or_scale_is_named(channels: int, upscale: int, shapes: int) -> None:
    words = f"got {shapes} of another shape (file ≠ network): "
    refusal(lambda: load_weights(span(0, channels, upscale), STATE), "WGT09", words)


def test_without_strict_what_fits_is_loaded_and_the_rest_told() -> None:
    network = span(0, upscale=3)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    content = {key: value for key, value in STATE.items() if key != "conv_cat.bias"}
    content["extra"] = torch.zeros(1)
    report = load_weights(network, content, strict=False)
    assert report.missing == ("conv_cat.bias",) and report.unexpected == ("extra",)
    assert report.mismatched == (
        "upsampler.0.weight (12, 4, 3, 3) ≠ (27, 4, 3, 3)",
        "upsampler.0.bias (12,) ≠ (27,)",
    )
    assert report.loaded == len(STATE) - 3
    kept = {"conv_cat.bias", "upsampler.0.weight", "upsampler.0.bias"}
    for key, value in network.state_dict().items():
        assert torch.equal(value, start[key] if key in kept else STATE[key]), key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_are_not_finite_are_refused_whole(value: float, strict: bool) -> None:
    bad = {key: tensor.clone() for key, tensor in STATE.items()}
    bad["conv_2.sk.bias"][1] = value
    network = span(0)
    before = state_sha256(network.state_dict())
    refusal(lambda: load_weights(network, bad, strict), "WGT10", "NaN or Inf in conv_2.sk.bias")
    assert state_sha256(network.state_dict()) == before


# What is not read ---------------------------------------------------------------------------------


class Bomb:
    """Makes a folder when it is unpickled by a careless reader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def bombs(marker: Path) -> dict[str, bytes]:
    content = {"params": {"conv_1.sk.bias": Bomb(marker)}}
    files = {}
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        files[f"raw{protocol}"] = pickle.dumps(content, protocol)
    return files


def careless(data: bytes) -> None:
    torch.load(io.BytesIO(data), weights_only=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", *(f"raw{n}" for n in range(6))])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, kind: str) -> None:
    marker, file = tmp_path / "executed", tmp_path / "net.pth"
    data = bombs(marker)[kind]
    file.write_bytes(data)
    network = span(0)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, file)
    assert not marker.exists()
    code = caught.value.problems[0].code
    if kind.startswith("raw"):  # torch cannot read every protocol: to it, some are damaged
        assert code in ("WGT02", "WGT04")
    else:
        assert code == "WGT02" and f"got global {os.mkdir.__module__}.mkdir" in str(caught.value)
    if kind.startswith("raw"):
        pickle.loads(data)
    else:
        careless(data)
    assert marker.exists()  # the bomb was a real one


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    gone, empty = tmp_path / "gone.pth", tmp_path / "empty.pth"
    empty.touch()
    text = refusal(lambda: read_weights(gone), "WGT05", "no weights file", str(gone))
    assert "got no such file" in text
    assert "got is a directory" in refusal(lambda: read_weights(tmp_path), "WGT05")
    refusal(lambda: read_weights(empty), "WGT05", "weights file is empty", "0 bytes")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n\n  <html lang='en'>"])
def test_a_web_page(tmp_path: Path, name: str, page: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(page + b"<body>Sign in</body>")
    refusal(lambda: read_weights(file), "WGT05", "not a weights file", "not its web page")


def test_a_safetensors_header_that_looks_like_a_web_page(tmp_path: Path) -> None:
    """A header of 0x3C20 bytes makes the file begin with ' <'."""
    file, length = tmp_path / "net.safetensors", 0x3C20
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = '{"__metadata__": {"pad": "%s"}, ' + entry + "}"
    header = header % ("x" * (length - len(header) + 2))
    file.write_bytes(struct.pack("<Q", length) + header.encode() + struct.pack("<f", 2.5))
    assert file.read_bytes().startswith(b" <")
    assert read_weights(file)["a"].tolist() == [2.5]


def test_any_cut_or_flipped_byte_is_a_weights_error_or_harmless(tmp_path: Path) -> None:
    """Only our own error may come out of a damaged file, whichever byte it is."""
    rng = np.random.default_rng(0)
    small = {"params": {"a": torch.arange(6.0), "b": torch.ones(2, 3)}}
    pth = saved(tmp_path, small).read_bytes()
    write_safetensors(tmp_path / "a.safetensors", small["params"], {"x": 1})
    codes = set()
    for whole, name in (
        (pth, "cut.pth"),
        ((tmp_path / "a.safetensors").read_bytes(), "cut.safetensors"),
    ):
        file = tmp_path / name
        for attempt in range(250):
            data = bytearray(whole)
            if attempt % 3 == 0:
                data = data[: rng.integers(1, len(data))]
            for _ in range(attempt % 3):
                data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            file.write_bytes(data)
            about_weights(file)
            try:
                read_weights(file)
            except WeightsError as error:
                codes.add((file.suffix, error.problems[0].code))
    assert {(".pth", "WGT04"), (".safetensors", "WGT04")} <= codes


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_truncated_file_says_so(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if file.suffix == ".pth":
        torch.save({"params": STATE}, file)
    else:
        write_safetensors(file, STATE, {})
    file.write_bytes(file.read_bytes()[:-5000])
    refusal(lambda: read_weights(file), "WGT04", "damaged", str(file), "download it again")


def test_a_compressed_archive(tmp_path: Path) -> None:
    """Zeros of 1 GB would fit in 1 MB."""
    source, file = saved(tmp_path, {"params": STATE}), tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    refusal(lambda: read_weights(file), "WGT07", "compressed entry", "net/data.pkl")


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """Each MB of the file could else be read a thousand times."""
    file = tmp_path / "net.pth"
    with zipfile.ZipFile(saved(tmp_path, {"w": torch.zeros(999)}), "a") as archive:
        data = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        for number in range(1, 9):
            again = copy.copy(data)
            again.filename = again.orig_filename = f"net/data/{number}"
            archive.filelist.append(again)
        archive._didModify = True  # writes its list of entries again
    refusal(lambda: read_weights(file), "WGT07", "more than it holds", "fix: save it again")


MAKERS = {
    "bytes": b"c__builtin__\nbytearray\n\x8a\x04\0\0\0\x10\x85R",
    "a tensor": b"ctorch\nTensor\n\x8a\x04\0\0\0\x10\x85R",
    "values": b"ctorch\nFloatTensor\n]q\0(]q\1(K\1K\1eh\1h\1e\x85R",
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_file_that_makes_what_it_does_not_store(tmp_path: Path, maker: str, zipped: bool) -> None:
    """Some hundred bytes could else ask for all memory: lists in lists count by multiplying."""
    pickled = b"\x80\2}X\1\0\0\0w" + MAKERS[maker] + b"s."
    file = tmp_path / "net.pth"
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("net/data.pkl", pickled)
            archive.writestr("net/version", "3\n")
    else:
        torch.save({}, file, _use_new_zipfile_serialization=False)
        empty = pickle.dumps({}, 2)
        assert file.read_bytes().count(empty) == 1
        file.write_bytes(file.read_bytes().replace(empty, pickled))
    name = "Tensor" if "Tensor" in str(MAKERS[maker]) else "bytearray"
    refusal(lambda: read_weights(file), "WGT02", "got global", name)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12),
        torch.zeros(3).as_strided((3, 3, 3), (1, 0, 0)),
        torch.eye(4).to_sparse(),
        torch.empty(3, device="meta"),
    ],
    ids=["stride 0", "overlapping", "sparse", "meta"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_tensor_larger_than_its_file(tmp_path: Path, tensor: Tensor) -> None:
    file = saved(tmp_path, {"epoch": 1, "params": {"w": tensor}})
    refusal(lambda: read_weights(file), "WGT06", f"got w {tuple(tensor.shape)}")


def test_a_view_of_a_larger_tensor_is_fine(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.arange(10.0)[2:5], "b": torch.ones(2, 3).T})
    content = read_weights(file)
    assert content["a"].tolist() == [2, 3, 4] and content["b"].shape == (3, 2)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ([torch.zeros(1)], "list"),
        (torch.zeros(2), "Tensor"),
        ({"params": {}}, "params"),
        ({}, "no"),
    ],
)
def test_a_file_without_a_state_dict(tmp_path: Path, content: object, got: str) -> None:
    file = saved(tmp_path, content)
    refusal(lambda: load_weights(span(0), file), "WGT03", f"got {got}")


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"a": torch.zeros(2)}
    loop["loop"] = loop
    assert read_weights(saved(tmp_path, loop))["a"].tolist() == [0, 0]


# What is written ----------------------------------------------------------------------------------


def test_the_header_tells_what_the_weights_are_for(tmp_path: Path) -> None:
    network, file = span(1), tmp_path / "net.safetensors"
    about = describe(network.options, ARCHS["SPAN"].scale(network.options))
    write_safetensors(file, network.state_dict(), about)
    assert about["scale"] == 2
    read = about_weights(file)
    assert read == json.loads(json.dumps(about))
    again = build_network(read["network_g"])
    assert isinstance(again, SPAN) and again.options == network.options
    load_weights(again, file)
    assert holds(again, STATE)


@pytest.mark.parametrize("text", ["[1, 2]", '"network_g"', "3", "{", "null"])
def test_a_header_of_another_tool_says_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file(STATE, file, metadata={"restore": text})
    assert about_weights(file) == {}
    file.write_bytes(b"\0" * 20)
    assert about_weights(file) == {}
    assert about_weights(tmp_path / "gone.safetensors") == about_weights(tmp_path / "a.pth") == {}


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_safetensors(files[0], STATE, {"scale": 2, "network_g": {"a": 1, "b": 2}})
    backwards = {key: STATE[key].clone() for key in reversed(KEYS)}
    write_safetensors(files[1], backwards, {"network_g": {"b": 2, "a": 1}, "scale": 2})
    assert files[0].read_bytes() == files[1].read_bytes()
    backwards["conv_cat.bias"][0] += 1
    write_safetensors(files[1], backwards, {"network_g": {"b": 2, "a": 1}, "scale": 2})
    assert files[0].read_bytes() != files[1].read_bytes()


def test_the_identity_of_weights_is_that_of_their_numbers(tmp_path: Path) -> None:
    digest = state_sha256(STATE)
    write_safetensors(tmp_path / "a.safetensors", STATE, {"any": "header"})
    torch.save({"params": official_state(span(1))}, tmp_path / "a.pth")
    torch.save(prefixed("module."), tmp_path / "b.pth")
    for name in ("a.safetensors", "a.pth", "b.pth"):
        network = span(0)
        load_weights(network, tmp_path / name)
        assert state_sha256(network.state_dict()) == digest
    assert state_sha256({key: STATE[key] for key in reversed(KEYS)}) == digest
    moved = {
        key: value.transpose(0, -1).contiguous().transpose(0, -1) for key, value in STATE.items()
    }
    assert state_sha256(moved) == digest  # memory order is not part of it


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.double(),
        lambda w: w.view(torch.int32),
        lambda w: w.flatten(),
        lambda w: w.index_fill(0, torch.tensor([1]), 0.0),
        lambda w: w * (1 + 2**-23),
    ],
    ids=["dtype", "dtype alone", "shape", "one number", "last bit"],
)
def test_any_change_changes_the_identity(change: Callable[[Tensor], Tensor]) -> None:
    key = "conv_cat.weight"
    assert state_sha256(STATE | {key: change(STATE[key])}) != state_sha256(STATE)
    renamed = {("other" if k == key else k): value for k, value in STATE.items()}
    assert state_sha256(renamed) != state_sha256(STATE)
