"""Fuzz the readers of files from elsewhere, guided by the lines of `restore` that an input reaches.

  pip install atheris
  python scripts/fuzz.py                                  all targets, about two minutes
  python scripts/fuzz.py --target pack --seconds 300      one for longer
  python scripts/fuzz.py --target pack --repeat FILE      what a find does, with its traceback

Right files are made here and changed; every outcome but a right answer or one of `restore.errors`
is a find: a traceback, a hang, memory, a crash of a library below. Finds are kept in
`--finds`/<target>/; with one, the exit code is 1. The corpus lives in a temporary folder, or in
`--corpus` to go on from. Targets: see fuzz_targets.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

TARGETS = (
    "options",
    "pack",
    "shards",
    "lmdb",
    "weights",
    "checkpoint",
    "image",
    "archive",
    "matrix",
)
MEMORY = 1024  # MiB that reading a file of some kB may take, beyond the libraries
TIMEOUT = 20  # seconds of one input
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 255, 2**31, 2**63, 10**30, 0.5, 1e308, "", "x", "\0", "../x", [], {}, [1],
    [[[]]], {"a": 1},
)  # fmt: skip


def atheris_module() -> Any:
    """The fuzzer's package, which only this script needs. Exits with 2 without it."""
    try:
        return importlib.import_module("atheris")
    except ImportError as error:
        problem = importlib.import_module("restore.errors").Problem(
            "DEV04",
            "atheris is not installed",
            "scripts/fuzz.py",
            str(error),
            "the package atheris, for this script alone",
            "pip install atheris",
        )
        print(problem, file=sys.stderr)
        sys.exit(2)


def mutator(atheris: Any, names: tuple[str, ...]) -> Any:
    """Changes one part of an input: JSON by its values too, all else by libFuzzer's ways."""
    framing = importlib.import_module("fuzz_parts")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        parts = framing.unpacked(data, names)
        # the longer parts more often, but not by their length
        weights = [1 + len(parts[name]).bit_length() for name in names]
        (name,) = chance.choices(names, weights)
        body = parts[name]
        changed = odd_value(body, chance) if chance.random() < 0.5 else None
        if changed is None:
            room = max(1, max_size - len(data) + len(body))
            changed = atheris.Mutate(body, room)
        return framing.packed({**parts, name: changed}, names)[:max_size]

    return mutate


def odd_value(body: bytes, chance: random.Random) -> bytes | None:
    """JSON with one value replaced, removed or copied; None for what is not a JSON object."""
    if not body.lstrip().startswith(b"{"):
        return None
    try:
        held = json.loads(body)
    except (ValueError, RecursionError):
        return None
    inside, key = None, None
    at = held
    while isinstance(at, dict | list) and at and (inside is None or chance.random() < 0.7):
        inside, key = at, chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        at = inside[key]
    if inside is None:
        return None
    what = chance.random()
    if what < 0.1:
        del inside[key]
    elif what < 0.2 and isinstance(inside, dict):
        inside[chance.choice(("x", "", "__metadata__", "version"))] = at
    elif what < 0.4 and isinstance(at, int):
        inside[key] = at + chance.choice((-1, 1, 8, -at, at))
    else:
        inside[key] = chance.choice(ODD)
    return json.dumps(held).encode()


def fuzz(name: str, runs: int, seconds: int, finds: Path, corpus: Path) -> None:
    """Fuzz one target in this process, which libFuzzer ends: with 1 for a find."""
    atheris = atheris_module()
    with atheris.instrument_imports(include=["restore"]):
        targets = importlib.import_module("fuzz_targets")
    framing, errors = map(importlib.import_module, ("fuzz_parts", "restore.errors"))
    quiet()
    target = targets.TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(framing.seeds_of(target)):
        (corpus / f"seed{number:02d}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=corpus.parent))
    words, scratch = folder / "words", folder / "input"
    words.write_text("# words\n" + "".join(map(quoted, sorted(target.words()))) + '"x"\n')
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    def once(data: bytes) -> None:
        try:
            framing.read_input(target, data, scratch)
        except errors.RestoreError as error:
            assert error.problems and not any("\n" in str(p) for p in error.problems)

    arguments = [
        "fuzz.py", f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={used + MEMORY}", f"-artifact_prefix={finds}/", f"-dict={words}",
        "-max_len=65536", "-error_exitcode=1", "-timeout_exitcode=1", "-print_final_stats=1",
        "-seed=1", "-verbosity=1", str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, once, custom_mutator=mutator(atheris, target.parts))
    atheris.Fuzz()


def quoted(word: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def quiet() -> None:
    """Nothing but finds on the console."""
    logging.getLogger("restore").setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")


def repeat(name: str, file: Path) -> None:
    """Read one input outside the fuzzer."""
    framing, targets = map(importlib.import_module, ("fuzz_parts", "fuzz_targets"))
    quiet()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        framing.read_input(targets.TARGETS[name], file.read_bytes(), Path(folder) / "input")
    print("read without complaint")


def all_of(args: argparse.Namespace) -> int:
    """Each target in a process of its own; 1 when one had a find."""
    atheris_module()
    faults = []
    for name in TARGETS:
        words = [sys.executable, __file__, "--target", name, f"--runs={args.runs}",
                 f"--seconds={args.seconds}", f"--finds={args.finds}"]  # fmt: skip
        words += [] if args.corpus is None else [f"--corpus={args.corpus}"]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, errors="replace")
        said = [s for s in done.stderr.splitlines() if not s.startswith("INFO: Instrumenting")]
        tried = [line.split()[-1] for line in said if "number_of_executed_units" in line]
        print(f"{name:<12}{tried[0] if tried else '?':>9} runs  "
              f"{'no find' if done.returncode == 0 else 'FIND'}", flush=True)  # fmt: skip
        if done.returncode:
            faults.append(name)
            print("\n".join(said[-40:]), file=sys.stderr)
    return 1 if faults else 0


def begin() -> int:
    """Parse and fuzz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=TARGETS, help="only this one, in this process")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of a target, at most")
    parser.add_argument("--seconds", type=int, default=12, help="of a target, at most")
    parser.add_argument("--finds", type=Path, default=ROOT / "experiments" / "fuzz")
    parser.add_argument("--corpus", type=Path, help="a folder to keep the corpus in")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="read one input of --target")
    args = parser.parse_args()
    if args.target is None:
        return all_of(args)
    if args.repeat is not None:
        repeat(args.target, args.repeat)
        return 0
    finds = args.finds / args.target
    finds.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        corpus = (args.corpus or Path(folder)) / args.target
        fuzz(args.target, args.runs, args.seconds, finds, corpus)
    return 0


if __name__ == "__main__":
    sys.exit(begin())
