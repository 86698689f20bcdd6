"""Shards: plain tar archives, read from a folder or from a server that delays, refuses and cuts."""

from __future__ import annotations

import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore import images
from restore.data.loader import Loader
from restore.data.options import BACKEND, PairedImageDataset
from restore.data.prepare.stores import prepare
from restore.data.sources import open_source
from restore.data.stages import Share, Stages
from restore.data.stores import ranges
from restore.data.stores.shards import Shards, write_shards
from restore.errors import DataError

Fault = Callable[[int, int], str]


class Server(ThreadingHTTPServer):
    """A folder by HTTP ranges; `fault(n, m)` is what befalls request n, the m-th of its range:
    `delay`, `refuse`, `cut`, `vanish`, `hang`, `ignore` the range, or nothing."""

    daemon_threads = True

    def __init__(self, folder: Path, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.fault = folder, fault
        self.count, self.lock = 0, threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gave up is what we wanted


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one segment
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            number = self.server.count
            self.server.count += 1
            again = self.server.asked[self.path, self.headers.get("Range", "")]
            self.server.asked[self.path, self.headers.get("Range", "")] += 1
        fault = self.server.fault(number, again)
        file = self.server.folder / self.path.lstrip("/")
        if fault == "vanish":
            self.close_connection = True
            return
        if fault == "hang":
            time.sleep(3)
        if fault == "delay":
            time.sleep(0.02)
        if fault == "refuse" or not file.is_file():
            self.send_response(503 if fault == "refuse" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, status = file.read_bytes(), 200
        asked = self.headers.get("Range")
        if asked and fault != "ignore":
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            body, status = body[first : last + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = fault == "cut"


@contextmanager
def served(folder: Path, fault: Fault = lambda number, again: "") -> Iterator[Server]:
    server = Server(folder, fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for number in range(9):
        for side, size in (("gt", 48), ("lq", 24)):
            (root / side).mkdir(exist_ok=True)
            image = rng.integers(0, 256, (size, size + 2 * size // 24, 3), dtype=np.uint8)
            images.write(root / side / f"{number}.png", image)
    prepare("shards", {side: root / side for side in ("gt", "lq")}, root)
    return root


def loader(gt: str, lq: str, backend: dict[str, object], workers: int = 2, **more: Any) -> Loader:
    section = BACKEND.validate(backend)
    options = PairedImageDataset(dataroot_gt=gt, dataroot_lq=lq, io_backend=section)
    source = open_source(options, 2, channels=3, training=True)
    stages = Stages.single(3, 32)
    return Loader(source, stages, hflip=True, rot=True, seed=1, workers=workers, **more)


def of_folder(folder: Path) -> Loader:
    return loader(str(folder / "gt"), str(folder / "lq"), {"type": "disk"})


def of_server(server: Server, **more: Any) -> Loader:
    backend: dict[str, object] = {"type": "shards", "timeout": 1.0, "attempts": 8}
    return loader(f"{server.address}/gt.shards", f"{server.address}/lq.shards/", backend, **more)


def bad_weather(number: int, again: int) -> str:
    """The first few requests of a range fail or dawdle."""
    return ("refuse", "cut", "delay", "vanish", "")[number % 5] if again < 4 else ""


def test_the_same_batches_through_a_bad_connection(folder: Path) -> None:
    truth = list(islice(of_folder(folder).batches(0), 8))
    with served(folder, bad_weather) as server:
        ours = list(islice(of_server(server, workers=4).batches(0), 8))
        resumed = list(islice(of_server(server, workers=0).batches(5), 3))
        assert server.count > 2 * 8 * 3
    for a, b in zip(truth + truth[5:], ours + resumed, strict=True):
        assert a.names == b.names and torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt)


def test_ranks_read_shares_without_overlap(folder: Path) -> None:
    with served(folder) as server:
        ranks = [of_server(server, share=Share(r, 3, 1, 3)) for r in range(3)]
        names = [next(rank.batches(0)).names for rank in ranks]
    assert sorted(name for share in names for name in share) == [str(n) for n in range(9)]


@pytest.mark.parametrize(
    ("fault", "words", "most"),
    [
        ("refuse", "status 503, 0 bytes, after 3 tries", 3),
        ("vanish", "RemoteDisconnected.*after 3 tries", 3),
        ("cut", "IncompleteRead.*after 3 tries", 3),
        ("hang", "TimeoutError.*after 3 tries", 3),
        ("ignore", "status 200", 1),
    ],
)
def test_a_server_that_stays_bad_is_named(folder: Path, fault: str, words: str, most: int) -> None:
    with served(folder) as server:
        shards = Shards(f"{server.address}/gt.shards", attempts=3, timeout=0.1)
        server.fault = lambda number, again: fault
        before = server.count
        with pytest.raises(
            DataError, match=rf"error\[DAT34\].*/gt.shards/00000.tar\): got {words}"
        ):
            shards.encoded(0)
        assert server.count - before == most


def test_an_address_without_shards(folder: Path) -> None:
    with served(folder) as server:
        with pytest.raises(DataError, match=r"error\[DAT02\].*no shards.json"):
            Shards(f"{server.address}/gt")
    with pytest.raises(DataError, match=r"error\[DAT34\].*ConnectionRefused"):
        Shards(server.address, attempts=2)


def test_a_missing_or_damaged_shard(folder: Path, tmp_path: Path) -> None:
    data = (folder / "gt/0.png").read_bytes()
    write_shards(tmp_path / "x", ["a.png", "b.png"], lambda index: data, shard_bytes=100)
    shard = tmp_path / "x/00001.tar"
    body = bytearray(shard.read_bytes())
    body[700] ^= 1
    shard.write_bytes(body)
    shards = Shards(tmp_path / "x")
    assert shards.encoded(0) == data
    with pytest.raises(DataError, match=r"error\[DAT10\].*00001\.tar/b\.png, byte 512"):
        shards.check(1, 3)
    shard.write_bytes(body[:900])
    with pytest.raises(DataError, match=r"error\[DAT34\].*388 of \d+ bytes at 512"):
        Shards(tmp_path / "x").encoded(1)
    shard.unlink()
    with pytest.raises(DataError, match=r"error\[DAT34\].*00001\.tar"):
        Shards(tmp_path / "x").encoded(1)
    index = tmp_path / "x/index.npy"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"error\[DAT10\].*index\.npy"):
        Shards(tmp_path / "x")


def test_any_tar_program_opens_them(folder: Path, tmp_path: Path) -> None:
    names = sorted([f"{'long' * 40}/{n}.png" for n in range(3)] + ["ä.png", "z.png"])
    files = [(folder / f"gt/{n}.png").read_bytes() for n in range(5)]
    write_shards(tmp_path / "x", names, lambda index: files[index], shard_bytes=12_000)
    held = {}
    tars = sorted((tmp_path / "x").glob("*.tar"))
    assert len(tars) == 3
    for file in tars:
        with tarfile.open(file) as tar:
            for member in tar:
                opened = tar.extractfile(member)
                assert opened is not None
                held[member.name] = opened.read()
    assert held == dict(zip(names, files, strict=True))
    shards = Shards(tmp_path / "x")
    assert [shards.encoded(n) for n in range(5)] == files
    index = np.load(tmp_path / "x/index.npy")
    assert index["length"].tolist() == [len(file) for file in files]
