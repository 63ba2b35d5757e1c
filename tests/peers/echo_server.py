"""The echo service of the tests with grpcio. Prints its port, then serves until its stdin ends.

    echo_server.py NAME [CA CERT KEY]

With CA it speaks TLS, and wants a certificate of CA's from its clients.
"""

import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc

SERVICE = "pillion.test.Echo"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo:
    """Methods as `echo.proto` describes them; messages are bytes."""

    def __init__(self, name: str):
        self.name = name
        self.cancelled = 0
        self.lock = threading.Lock()

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        time.sleep(int(metadata.get("sleep-ms", "0")) / 1000)
        if "status" in metadata:
            code = next(c for c in grpc.StatusCode if c.value[0] == int(metadata["status"]))
            context.set_trailing_metadata(
                [("grpc-status-details-bin", metadata["details-bin"])]
            )
            context.abort(code, metadata["message-bin"].decode())
        echoed = echoed_metadata(context)
        context.send_initial_metadata([*echoed, ("server", self.name)])
        context.set_trailing_metadata(echoed)
        return request

    def download(self, request: bytes, context: grpc.ServicerContext):
        count, size, code = map(int, request.split())
        done = threading.Event()
        context.add_callback(lambda: done.is_set() or self.count_cancelled())
        for _ in range(count):
            yield b"\x07" * size
        done.set()
        if code:
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == code), "as asked")

    def upload(self, requests, _context: grpc.ServicerContext) -> bytes:
        sizes = [len(request) for request in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    def chat(self, requests, context: grpc.ServicerContext):
        context.send_initial_metadata(echoed_metadata(context))
        yield from requests
        yield b"bye"

    def count_cancelled(self) -> None:
        with self.lock:
            self.cancelled += 1

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Download": grpc.unary_stream_rpc_method_handler(self.download),
                "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
                "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
                "Cancelled": grpc.unary_unary_rpc_method_handler(
                    lambda _request, _context: str(self.cancelled).encode()
                ),
            },
        )


def echoed_metadata(context: grpc.ServicerContext) -> list:
    return [(k, v) for k, v in context.invocation_metadata() if k.startswith("echo-")]


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=UNLIMITED)
    name = sys.argv[1] if len(sys.argv) > 1 else "python"
    server.add_generic_rpc_handlers([Echo(name).handlers()])
    pem = [Path(path).read_bytes() for path in sys.argv[2:]]
    if pem:
        ca, cert, key = pem
        credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
