"""What benchmarks/load.py runs in processes of their own."""

PROLOGUE = """
import atexit, os, re, sys
from pathlib import Path
def resident():
    return re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
FIRST = os.getpid()
atexit.register(lambda: os.getpid() == FIRST and Path(os.environ["PEAK"]).write_text(resident()))
"""
"""Leaves the peak of the process's memory, in KiB, in the file that PEAK names."""

READERS = """
import threading, zlib
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
import numpy as np
from restore.data.options import PackOptions
from restore.data.pair import Box
from restore.data.sources import open_store
BACKEND = PackOptions(type="pack")
def many(root, count):
    together = threading.Barrier(min(count, 64))
    first = open_store(BACKEND, root)
    whole = [first.held(k, 3).whole() for k in range(len(first.names))]
    del first
    def reader(number):
        if number < together.parties:
            together.wait()
        store, wrong = open_store(BACKEND, root), 0
        for k in range(20):
            rng = np.random.default_rng([number, k])
            index, top, left = rng.integers(0, [len(whole), 200, 300])
            box = Box(int(top), int(left), 96, 96)
            part = store.held(int(index), 3).part(box)
            wrong += not np.array_equal(part, whole[index][box.slices])
        return store, wrong  # stays open
    with ThreadPoolExecutor(64) as pool:
        readers = list(pool.map(reader, range(count)))
    wrong = sum(wrong for _, wrong in readers)
    return len(readers), wrong, len(os.listdir("/proc/self/fd")), int(resident())
if __name__ == "__main__":
    root, count, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if processes == 1:
        found = [many(root, count)]
    else:
        with get_context("fork").Pool(processes) as pool:
            found = pool.starmap(many, [(root, count)] * processes)
    opened, wrong, files, peak = zip(*found)
    print(sum(opened), sum(wrong), max(files), max(peak))
"""
"""ROOT COUNT PROCESSES: open a pack COUNT times in each; prints opened, wrong crops, and the most
open files and memory (KiB) of a process."""

LOGS = """
import json, math, time
import numpy as np
from restore.reports.curves import read_curves
from restore.reports.page.page import Page, write_page
from restore.reports.sinks import LOGGER, JsonlSink, Sinks, TensorBoardSink, log_to_file
from restore.training.clock import Clock
from restore.training.trainer import PICTURE
steps, every, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
folder.mkdir()
LOGGER.setLevel("DEBUG")
log_to_file(folder / "train.log")
rng = np.random.default_rng(0)
picture = rng.integers(0, 256, (PICTURE, PICTURE, 3), dtype=np.uint8)
clock = Clock(steps, every, 5000, 5000)
with Sinks([JsonlSink(folder / "log.jsonl", 0), TensorBoardSink(folder / "tb_logger", 0)]) as sinks:
    for step in range(1, steps + 1):
        if clock.prints(step):
            loss = 0.02 + 1 / math.sqrt(step) * (1 + rng.random())
            speed = {"lr": 2e-4 * rng.random(), "it_per_s": 5 + rng.random(), "data_wait": 0.01}
            sinks.scalars(step, {"loss": loss, "loss/pixel": loss, **speed})
            LOGGER.debug("step %d loss %.5g lr %.3g", step, loss, speed["lr"])
        if clock.validates(step):
            psnr = 38 - 10 / math.log(step)
            sinks.scalars(step, {"val/Set5/psnr": psnr, "val/Set5/ssim": 0.9})
            if clock.shows(step):
                sinks.image(step, "Set5/baby", picture)
start = time.process_time()
JsonlSink(folder / "log.jsonl", steps - 1).close()  # as a resumed run does
curves = read_curves("run", folder / "log.jsonl")
assert [s.measure for s in curves] == ["loss", "val/Set5/psnr"]
assert curves[0].steps[-1] >= steps - max(every, 128) and len(curves[1].steps) >= steps // 5000 - 1
page = write_page(folder, Page("week", [], [], "bicubic", [], curves=curves))
seconds = time.process_time() - start
assert seconds < 10, f"reading the log and writing the page took {seconds:.1f} s"
tb = sum(f.stat().st_size for f in (folder / "tb_logger").iterdir())
sizes = {n: (folder / n).stat().st_size for n in ("log.jsonl", "train.log", "index.html")}
print(json.dumps({**sizes, "tb_logger": tb}))
"""
"""STEPS PRINT_FREQ FOLDER: the logs of a run of STEPS; prints their sizes in bytes as JSON."""
