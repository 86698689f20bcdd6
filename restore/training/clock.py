"""Floor 5. When a run reports, saves and validates; reports and pictures of a long one thin out."""

from __future__ import annotations

from dataclasses import dataclass

MOST_REPORTS, MOST_PICTURES = 50_000, 50  # before they come more rarely: see `kept`


def kept(number: int, most: int) -> bool:
    """Whether a log keeps the `number`-th of its entries, so that no run fills a disk.

    All of the first `most`, then every 2nd up to twice as many, every 4th up to four times as many
    and so on: whenever a run doubles, `most` / 2 are added. A function of the number alone, so that
    a resumed run goes on as if it had never stopped.
    """
    return number % (1 << ((number - 1) // most).bit_length()) == 0


@dataclass(frozen=True)
class Clock:
    """When things happen, in steps."""

    total: int
    print_every: int
    save_every: int
    validate_every: int | None

    def prints(self, step: int) -> bool:
        due = step % self.print_every == 0 and kept(step // self.print_every, MOST_REPORTS)
        return due or step == self.total

    def saves(self, step: int) -> bool:
        return step % self.save_every == 0 or step == self.total

    def validates(self, step: int) -> bool:
        every = self.validate_every
        return every is not None and (step % every == 0 or step == self.total)

    def shows(self, step: int) -> bool:
        """Whether the logs get pictures of the validation at `step`."""
        return step == self.total or kept(step // (self.validate_every or 1), MOST_PICTURES)
