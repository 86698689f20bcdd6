"""Floor 6. The folder of a run: `experiments/<name>/`, never entered half-way, never left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from restore.errors import OptionError, RunError
from restore.options_yaml import dump
from restore.reports.provenance import commit, versions
from restore.reports.records import read_object, replace_text
from restore.section import Section

STARTS = 3


class Experiment:
    """`root/name`, with the files that say what was run."""

    def __init__(self, root: str, name: str) -> None:
        self.folder = Path(root) / name
        resolved, allowed = self.folder.resolve(), Path(root).resolve()
        if resolved.parent != allowed:
            raise OptionError.of(
                "OPT21",
                "the experiment's folder lies elsewhere",
                str(self.folder),
                str(resolved),
                f"a folder in {allowed}",
                "remove the link or rename the run",
            )

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.folder / "checkpoints"

    def refuse_existing(self, *, resume: bool, overwrite: bool) -> None:
        """OptionError OPT22 when a run of this name is there and neither flag says what to do."""
        if self.folder.exists() and any(self.folder.iterdir()) and not (resume or overwrite):
            raise OptionError.of(
                "OPT22",
                "an experiment of this name exists",
                str(self.folder),
                "a folder that is not empty",
                "a new name, --auto_resume or --overwrite",
                "--auto_resume to continue it, --overwrite to delete it and start anew",
            )

    def note_restart(self, step: int) -> None:
        """Count the starts of an elastic job at one `step`. Raises RunError RUN03 at the fourth.

        torchrun starts a job again after any failure, also after one that will happen again.
        """
        file = self.folder / "restarts.json"
        before = read_object(file) if file.exists() else {}
        starts = before.get("starts") if before.get("step") == step else 0
        starts = starts + 1 if isinstance(starts, int) else 1
        if starts > STARTS:
            raise RunError.of(
                "RUN03",
                "started again and again without getting further",
                str(file),
                f"{starts - 1} starts at step {step}",
                f"a checkpoint beyond step {step}",
                f"see the errors in {self.folder / 'train.log'}, then delete {file.name}",
            )
        replace_text(file, json.dumps({"step": step, "starts": starts}) + "\n")

    @property
    def results(self) -> Path:
        """Where a test leaves what it found."""
        return self.folder / "results"

    @property
    def unfinished_results(self) -> Path:
        """Where a test works; it takes the place of `results` when it is done."""
        return self.folder / ".results.tmp"


def begin(folder: Path, options: Section, *, afresh: bool) -> None:
    """Make `folder`; write `options.yml` (resolved) and `run.json` (versions, commit) into it.

    With `afresh`, what was there is deleted first.
    """
    if afresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "options.yml", dump(options.model_dump()))
    about = {"versions": versions(), "commit": commit()}
    replace_text(folder / "run.json", json.dumps(about, indent=2) + "\n")
