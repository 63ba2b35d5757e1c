"""Calls the echo service of the tests with grpcio in every way, and prints what came of it as JSON.

    echo_client.py PROXY AUTHORITY [CA CERT KEY]

With CA it speaks TLS, and presents CERT.

`tests/behaviour/interop.rs` does the same with tonic and compares.
"""

import json
import queue
import sys
import time
from pathlib import Path

import grpc

PATH = "/pillion.test.Echo/"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    """One channel to the service that `authority` names."""

    def __init__(self, proxy: str, authority: str, *pem: str):
        if pem:
            ca, cert, key = (Path(path).read_bytes() for path in pem)
            credentials = grpc.ssl_channel_credentials(ca, key, cert)
            options = [*UNLIMITED, ("grpc.ssl_target_name_override", authority)]
            channel = grpc.secure_channel(proxy, credentials, options=options)
        else:
            options = [*UNLIMITED, ("grpc.default_authority", authority)]
            channel = grpc.insecure_channel(proxy, options=options)
        self.unary = channel.unary_unary(PATH + "Unary")
        self.download = channel.unary_stream(PATH + "Download")
        self.upload = channel.stream_unary(PATH + "Upload")
        self.chat = channel.stream_stream(PATH + "Chat")
        self.cancelled = channel.unary_unary(PATH + "Cancelled")
        self.missing = channel.unary_unary(PATH + "Missing")


def unary(client: Client) -> dict:
    metadata = [("echo-text", "a"), ("echo-text", "b, c"), ("echo-raw-bin", b"\x00\xff\x10")]
    reply, call = client.unary.with_call(b"hello", metadata=metadata, timeout=20)
    echoed = {}
    for key, value in call.initial_metadata():
        if key.startswith("echo-"):
            echoed.setdefault(key, []).append(value.hex() if key.endswith("-bin") else value)
    return {"reply": reply.decode(), "metadata": echoed}


def download(client: Client) -> list:
    return [len(message) for message in client.download(b"5 70000 0", timeout=20)]


def broken_download(client: Client) -> dict:
    messages = 0
    try:
        for _ in client.download(b"3 10 10", timeout=20):
            messages += 1
    except grpc.RpcError as error:
        return {"messages": messages, "code": error.code().value[0], "message": error.details()}
    return {"messages": messages, "code": 0}


def upload(client: Client) -> str:
    return client.upload(iter([b"x" * 70000] * 5), timeout=20).decode()


def chat(client: Client) -> dict:
    said: queue.Queue = queue.Queue()
    call = client.chat(iter(said.get, None), metadata=[("echo-text", "first")], timeout=20)
    # Nothing has been said yet: this waits for ever if initial metadata wait for a message.
    initial = dict(call.initial_metadata())["echo-text"]
    replies = []
    for word in [b"one", b"two"]:
        said.put(word)
        replies.append(next(call).decode())
    said.put(None)
    replies.extend(reply.decode() for reply in call)
    return {"initial": initial, "replies": replies}


def error(client: Client) -> dict:
    metadata = [
        ("status", "9"),
        ("message-bin", "50% of ünïcode \u2603\n\ttab".encode()),
        ("details-bin", b"\xde\xad\xbe\xef"),
    ]
    try:
        client.unary(b"", metadata=metadata, timeout=20)
    except grpc.RpcError as status:
        details = dict(status.trailing_metadata())["grpc-status-details-bin"]
        code, message = status.code().value[0], status.details()
        return {"code": code, "message": message, "details": details.hex()}
    return {}


def missing_method(client: Client) -> int:
    return code_of(lambda: client.missing(b"", timeout=20))


def deadline(client: Client) -> int:
    return code_of(lambda: client.unary(b"", metadata=[("sleep-ms", "3000")], timeout=0.2))


def large(client: Client) -> bool:
    message = bytes(range(256)) * (16 << 12)
    return client.unary(message, timeout=20) == message


def cancel(client: Client) -> bool:
    messages = client.download(b"1000000 10000 0", timeout=20)
    next(messages)
    messages.cancel()
    for _ in range(2000):
        if client.cancelled(b"", timeout=20) != b"0":
            return True
        time.sleep(0.01)
    return False


def code_of(call) -> int:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().value[0]
    return 0


SCENARIOS = [
    unary,
    download,
    broken_download,
    upload,
    chat,
    error,
    missing_method,
    deadline,
    large,
    cancel,
]

if __name__ == "__main__":
    the_client = Client(*sys.argv[1:])
    print(json.dumps({scenario.__name__: scenario(the_client) for scenario in SCENARIOS}))
