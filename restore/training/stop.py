"""Floor 5. Signals: SIGTERM and Ctrl-C ask a run to save and leave, SIGUSR1 to save and go on.

A second Ctrl-C ends it at once. Python runs a handler only between its own instructions: a process
that waits for a rank that is gone would not hear SIGTERM, so with several ranks a thread listens
too, and ends a process that has not answered in time.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import FrameType

SAVED_AND_LEFT = 75  # EX_TEMPFAIL: unfinished, run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ANSWER_WITHIN = 20.0  # seconds; torchrun kills after 30


class Stop:
    """In a `with` block, `asked` tells whether a signal asked to leave, `save_asked` to save.

    `watched`: end the process when SIGTERM is not answered, for it waits in a collective.
    """

    def __init__(self, *, watched: bool = False) -> None:
        self.asked = self.save_asked = False
        self._watched = watched
        self._before: dict[signal.Signals, signal.Handlers | int | object] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._wakeup_before = -1

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save_asked = True
            return
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        if self._watched:
            self._sockets = socket.socketpair()
            self._sockets[1].setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._sockets[1].fileno())
            threading.Thread(target=self._listen, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sockets is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            for end in reversed(self._sockets):
                end.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _listen(self) -> None:
        """Wait for SIGTERM's number, which arrives even when no handler can run."""
        assert self._sockets is not None
        try:
            while signal.SIGTERM not in self._sockets[0].recv(16) or self.asked:
                pass
        except OSError:
            return  # the block has been left
        threading.Event().wait(ANSWER_WITHIN)
        if not self.asked:
            os._exit(128 + signal.SIGTERM)
