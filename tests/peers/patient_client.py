"""Makes two calls with grpcio that wait for their end, and prints as JSON what each was told.

    patient_client.py PROXY AUTHORITY

One is unary; of the other, an answer of many messages, the first is awaited, and `begun` printed.
"""

import json
import sys

import grpc

PATH = "/pillion.test.Echo/"


def told(call: grpc.RpcError) -> dict:
    reasons = [value for key, value in call.trailing_metadata() if key == "pillion-error"]
    return {
        "code": call.code().name,
        "details": call.details(),
        "reason": reasons[0] if reasons else None,
    }


if __name__ == "__main__":
    proxy, authority = sys.argv[1:3]
    # Else grpcio calls again by itself what nobody has answered yet.
    options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
    channel = grpc.insecure_channel(proxy, options=options)
    unary = channel.unary_unary(PATH + "Unary").future(b"hello", timeout=60)
    download = channel.unary_stream(PATH + "Download")
    download = download(b"hello", timeout=60, metadata=[("begin", "1")])
    next(download)
    print("begun", flush=True)
    calls = {"unary": unary, "download": download}
    try:
        next(download)
    except grpc.RpcError:
        pass
    unary.exception()
    print(json.dumps({name: told(call) for name, call in calls.items()}), flush=True)
