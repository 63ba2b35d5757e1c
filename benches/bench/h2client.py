"""A client connection of HTTP/2, just able to make a call and to stay open.

`cases` uses it to see that a proxy answers before it is measured, and to hold many connections.
It reads no header: whether an answer is right shows in the length of its body, since a gRPC
error has none.
"""

from __future__ import annotations

import socket
import ssl
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
INITIAL_WINDOW_SIZE = 4
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
LIMIT = 5.0
"""Seconds that any one read or write may take."""


class Connection:
    """One connection to a proxy, used by one call after the other."""

    def __init__(self, port: int, authority: str, path: str, tls: bool = False) -> None:
        self._block = header_block(authority, path, "https" if tls else "http")
        self._stream = -1
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        if tls:
            self._socket = by_tls(self._socket)
        self._input = self._socket.makefile("rb")
        # Windows for 2 GiB of answers, so that none has to be opened later.
        window = frame(WINDOW_UPDATE, 0, 0, (0x7FFFFFFF - 0xFFFF).to_bytes(4, "big"))
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0x7FFFFFFF)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + window)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, body: bytes) -> int:
        """Sends one call and returns the length of the answer's body.

        Raises `OSError` when the connection or the stream breaks.
        """
        self._stream += 2
        self._socket.sendall(
            frame(HEADERS, END_HEADERS, self._stream, self._block)
            + frame(DATA, END_STREAM, self._stream, body)
        )
        received = 0
        while True:
            kind, flags, stream, payload = self._read()
            if kind == DATA:
                received += len(payload) - (payload[0] + 1 if flags & PADDED else 0)
            elif kind in (RST_STREAM, GOAWAY):
                raise ConnectionError(f"reset or closed by the proxy: frame {kind}, {payload!r}")
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            if kind in (DATA, HEADERS) and stream == self._stream and flags & END_STREAM:
                return received

    def close(self) -> None:
        """Closes the connection."""
        self._input.close()
        self._socket.close()

    def _read(self) -> tuple[int, int, int, bytes]:
        head = self._input.read(9)
        if len(head) < 9:
            raise ConnectionError("closed by the proxy")
        high, low, kind, flags, stream = struct.unpack(">BHBBI", head)
        return kind, flags, stream & 0x7FFFFFFF, self._input.read(high << 16 | low)


def by_tls(plain: socket.socket) -> socket.socket:
    """The same with TLS; who it is is not looked at."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(plain)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 section 4.1); a payload of at most 16 KiB, as every peer accepts."""
    return struct.pack(">BHBBI", 0, len(payload), kind, flags, stream) + payload


def header_block(authority: str, path: str, scheme: str = "http") -> bytes:
    """Head of a gRPC call, each field a literal without index or Huffman code (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": scheme,
        ":authority": authority,
        ":path": path,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    texts = (text.encode() for field in fields.items() for text in field)
    strings = [bytes([len(text)]) + text for text in texts]
    return b"".join(b"\0" + name + value for name, value in zip(strings[::2], strings[1::2]))
