"""`python -m benchmarks.rivals.litserve_onnx PORT BUNDLE`: LitServe with the ONNX file and preprocessing of a bundle.

A worker a core, one thread each. It takes a form with the field `content`.
"""

import sys
from typing import Any

import fastapi
import litserve
import numpy as np

import effnet
from effnet.system.machine import usable_cores


class Api(litserve.LitAPI):
    """Answers an image with its best classes; `bundle` is set before it runs."""

    bundle = ""

    def setup(self, device: str) -> None:
        """Open the bundle in the worker."""
        self.model = effnet.load(self.bundle, threads=1)

    def decode_request(self, request: fastapi.Request) -> Any:
        """Return the prepared image; LitServe passes the form of the request."""
        form: Any = request
        return self.model.prepare(form["content"].file.read())

    def predict(self, x: Any) -> Any:
        """Return the outputs of one image."""
        return self.model.outputs(x[None])[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the five best classes."""
        best = np.argsort(output)[::-1][:5]
        return {"classes": best.tolist(), "scores": output[best].tolist()}


def main() -> None:
    """Serve until the process is ended."""
    api = Api()
    api.bundle = sys.argv[2]
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=usable_cores())
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
