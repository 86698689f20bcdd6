"""Floor 5. SIGTERM and Ctrl-C ask a run to save and leave; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
from types import FrameType

SAVED_AND_LEFT = 75  # EX_TEMPFAIL: unfinished, run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """In a `with` block, `asked` tells whether a signal has come."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, signal.Handlers | int | object] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
