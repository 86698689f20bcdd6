"""Floor 1. What a user can get wrong, said once and the same way everywhere.

Every error is a `Problem`, printed as one line:

    error[CODE]: what (where): got …; expected …; fix: …

Codes: OPT options, DAT data sets, IMG images, WGT weights, CKP checkpoints and saving,
DST distributed runs, DEV devices, RUN a run that had to stop, SYS the system refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


def printable(text: object) -> str:
    """`text` with control characters escaped, so that a file name cannot forge a log line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@dataclass(frozen=True)
class Problem:
    """One mistake: what it is, where it stands, what was found, what was wanted, the way out."""

    code: str
    what: str
    where: str
    got: str
    expected: str
    fix: str

    def __str__(self) -> str:
        what, where, got, expected, fix = map(
            printable, (self.what, self.where, self.got, self.expected, self.fix)
        )
        return f"error[{self.code}]: {what} ({where}): got {got}; expected {expected}; fix: {fix}"


class RestoreError(Exception):
    """Base of all errors meant for the user; holds one or more problems."""

    exit_code = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    @classmethod
    def of(cls, code: str, what: str, where: str, got: str, expected: str, fix: str) -> Self:
        """An error of one problem."""
        return cls(Problem(code, what, where, got, expected, fix))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class OptionError(RestoreError):
    """An option file or a command line says something that cannot be done."""


class DataError(RestoreError):
    """A folder, a pair or an image is not what the options promise."""


class WeightsError(RestoreError):
    """A weights file cannot be read or does not fit the network."""


class BackendError(RestoreError):
    """A device, a launcher or an optional package that was asked for is not there."""


class CheckpointError(RestoreError):
    """A checkpoint cannot be read or is of another run."""


class RunError(RestoreError):
    """A run that had started had to stop: its loss is not finite."""

    exit_code = 3


class SaveError(RestoreError):
    """A checkpoint cannot be written: disk full, read-only, quota."""

    exit_code = 4
