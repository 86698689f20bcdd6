"""Floor 3. Parts of files, from a folder or by HTTP range requests.

A server far away delays, says 503, and cuts bodies short. Each of these is tried again a few times,
later and later; what is certain (404, 403, a server that ignores ranges) is not. Nothing waits
without end, and the error names the file.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from restore.errors import DataError

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds before another try; doubled each time
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be other next time


class Ranges(Protocol):
    """Files of a store by name."""

    def whole(self, name: str) -> bytes:
        """All of a small file. Raises FileNotFoundError, DataError DAT34."""
        ...

    def part(self, name: str, offset: int, count: int) -> bytes:
        """Exactly `count` bytes, at least one, from `offset` on. Raises DataError DAT34."""
        ...


def ranges_of(root: str, *, attempts: int, timeout: float) -> Ranges:
    """The files under `root`, a folder or an http(s) address."""
    if root.startswith(("http://", "https://")):
        return HttpRanges(root, attempts=attempts, timeout=timeout)
    return FolderRanges(root)


class FolderRanges(Ranges):
    """Files in a folder, each kept open."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def whole(self, name: str) -> bytes:
        return Path(self._root, name).read_bytes()

    def part(self, name: str, offset: int, count: int) -> bytes:
        where = os.path.join(self._root, name)
        try:
            with self._lock:
                if name not in self._files:
                    self._files[name] = os.open(where, os.O_RDONLY)
            size = os.fstat(self._files[name]).st_size
            there = min(count, max(size - offset, 0))  # no memory for what an index only claims
            read = os.pread(self._files[name], there, offset) if there else b""
        except OSError as error:
            raise unreadable(where, str(error)) from None
        if len(read) != count:
            raise unreadable(where, f"{len(read)} of {count} bytes at {offset}")
        return read


class HttpRanges(Ranges):
    """Files below an address; one kept connection a thread. Redirects are not followed."""

    def __init__(self, root: str, *, attempts: int, timeout: float) -> None:
        self._root = root
        self._at = urlsplit(root)
        self._attempts, self._timeout = attempts, timeout
        self._local = threading.local()

    def whole(self, name: str) -> bytes:
        return self._tried(name, {}, None)

    def part(self, name: str, offset: int, count: int) -> bytes:
        asked = {"Range": f"bytes={offset}-{offset + count - 1}"}
        return self._tried(name, asked, count)

    def _tried(self, name: str, headers: Mapping[str, str], count: int | None) -> bytes:
        where, wait, got = f"{self._root}/{name}", FIRST_WAIT, ""
        for attempt in range(1, self._attempts + 1):
            try:
                status, body = self._once(name, headers)
            except (OSError, http.client.HTTPException) as error:
                self._local.connection = None
                got = f"{type(error).__name__}: {error}"
            else:
                if status == (200 if count is None else 206) and len(body) == (count or len(body)):
                    return body
                if status == 404 and count is None:
                    raise FileNotFoundError(where)
                got = f"status {status}, {len(body)} bytes"
                if status not in PASSING and status != 206:
                    raise unreadable(where, got)
            if attempt < self._attempts:
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        raise unreadable(where, f"{got}, after {self._attempts} tries")

    def _once(self, name: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """(status, body) of one request. Raises OSError, HTTPException (a cut body too)."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            secure = self._at.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            connection = kind(self._at.netloc, timeout=self._timeout)
            self._local.connection = connection
        query = f"?{self._at.query}" if self._at.query else ""
        connection.request("GET", f"{self._at.path}/{quote(name)}{query}", headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()


def unreadable(where: str, got: str) -> DataError:
    """The DataError of a part that could not be had."""
    return DataError.of(
        "DAT34",
        "a shard cannot be read",
        where,
        got,
        "the bytes that the index names",
        "check the address and the server, or make the shards again",
    )
