"""Makes one call with grpcio, whose service config has it tried again, and prints the status.

    retrying_client.py PROXY AUTHORITY
"""

import json
import sys

import grpc

RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "pillion.test.Echo"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.05s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

if __name__ == "__main__":
    proxy, authority = sys.argv[1:3]
    options = [
        ("grpc.default_authority", authority),
        ("grpc.service_config", json.dumps(RETRIES)),
        # No budget of its own: what is counted is what the proxies make of its attempts.
        ("grpc.enable_retries", 1),
    ]
    unary = grpc.insecure_channel(proxy, options=options).unary_unary("/pillion.test.Echo/Unary")
    try:
        unary(b"hello", timeout=20)
        print(0)
    except grpc.RpcError as error:
        print(error.code().value[0])
