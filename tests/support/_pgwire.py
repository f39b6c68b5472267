"""Reading message kinds off a PostgreSQL connection in clear text, chunk by chunk."""

from __future__ import annotations

__all__ = ["PostgresReader"]

# What a client may send before messages carry a kind; anything else there is a protocol version.
_REQUESTS = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}


class _Frames:
    """Finds where messages begin in a stream cut at any byte; bodies are skipped, never kept."""

    __slots__ = ("_body_left", "_head", "typed")

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        self._head = bytearray()
        self._body_left = 0

    def feed(self, data: bytes) -> list[str]:
        """Take a chunk and return the kinds of the messages that begin in it."""
        kinds = []
        position = 0
        while position < len(data):
            if self._body_left:
                skipped = min(self._body_left, len(data) - position)
                self._body_left -= skipped
                position += skipped
                continue
            # Typed: kind and length. Untyped: length and request code.
            size = 5 if self.typed else 8
            taken = data[position : position + size - len(self._head)]
            self._head += taken
            position += len(taken)
            if len(self._head) < size:
                break
            kinds.append(self._begin())
            self._head.clear()
        return kinds

    def _begin(self) -> str:
        if self.typed:
            self._body_left = int.from_bytes(self._head[1:5], "big") - 4
            return chr(self._head[0])
        self._body_left = int.from_bytes(self._head[:4], "big") - 8
        kind = _REQUESTS.get(int.from_bytes(self._head[4:8], "big"), "Startup")
        self.typed = kind == "Startup"
        return kind


class PostgresReader:
    """Both directions of one connection.

    Frontend kinds are the protocol's letters (`P` parse, `B` bind, `E` execute, `S` sync, `Q` simple query …) and the
    names `Startup`, `SSLRequest`, `GSSENCRequest`, `CancelRequest`. Once the server agrees to encrypt, nothing more is
    read.
    """

    __slots__ = ("_backend", "_encrypted", "_frontend", "_single_replies")

    def __init__(self) -> None:
        self._frontend = _Frames(typed=False)
        self._backend = _Frames(typed=True)
        self._single_replies = 0
        self._encrypted = False

    def from_client(self, data: bytes) -> list[str]:
        """Take what the client sent and return the kinds that begin in it."""
        if self._encrypted:
            return []
        kinds = self._frontend.feed(data)
        self._single_replies += sum(kind in ("SSLRequest", "GSSENCRequest") for kind in kinds)
        return kinds

    def from_server(self, data: bytes) -> list[str]:
        """Take what the server sent and return the kinds that begin in it."""
        while data and self._single_replies and not self._encrypted:
            # The answer to an encryption request is one bare byte.
            self._single_replies -= 1
            self._encrypted = data[:1] in (b"S", b"G")
            data = data[1:]
        return [] if self._encrypted else self._backend.feed(data)
