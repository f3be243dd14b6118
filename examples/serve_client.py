"""A client of `effnet serve`: it sends images, and tries again if the server is busy. Only Python is needed.

python examples/serve_client.py http://127.0.0.1:8000 cat.jpg dog.jpg
"""

import argparse
import json
import time
import urllib.error
import urllib.request

TRIES = 5


def predict(server: str, data: bytes, key: str = "") -> dict:
    """Return the answer to an encoded image; raise urllib.error.HTTPError if the server refuses it for good."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{server}/predict", data=data, headers=headers)
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            # Busy, loading or shutting down: the server says when to try again.
            if error.code != 503 or not left:
                raise
            time.sleep(float(error.headers.get("Retry-After", 1)))
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--key", default="")
    args = parser.parse_args()
    for path in args.images:
        with open(path, "rb") as file:
            data = file.read()
        try:
            found = predict(args.server, data, args.key)
        except urllib.error.HTTPError as error:
            print(f"{path}: {json.loads(error.read())['error']}")
            continue
        rows = found.get("predictions") or found.get("objects") or [{"label": str(found.get("outputs", found))}]
        score = rows[0].get("probability", rows[0].get("score"))
        label = rows[0]["label"] if found.get("known", True) else "unknown"
        print(f"{path}: {label}" + (f" {score:.1%}" if score is not None else ""))


if __name__ == "__main__":
    main()
