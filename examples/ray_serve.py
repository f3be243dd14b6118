"""Serve a bundle on the nodes of a Ray cluster: one replica a core, images in batches of what waits.

serve run examples.ray_serve:app_of bundle=/models/cats     (or: python examples/ray_serve.py BUNDLE IMAGE, a trial)

On one machine `effnet serve` does the same with less: Ray sends each request through a process of its own. Use it where
Ray schedules already. Each replica proves its bundle before it answers, as `effnet serve` does.
"""

import sys
import urllib.request

import numpy as np
from ray import serve
from starlette.requests import Request

import effnet
from effnet.serving.versions.prove import prove


@serve.deployment(
    num_replicas=2, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=16, max_queued_requests=64,
    graceful_shutdown_timeout_s=30,
)  # fmt: skip
class Classifier:
    """One engine of one thread."""

    def __init__(self, bundle: str) -> None:
        self.model = effnet.load(bundle, threads=1)
        prove(self.model)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0)
    async def probabilities(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.model.probabilities(np.stack(images)))

    async def __call__(self, request: Request) -> dict:
        try:
            image = self.model.prepare(await request.body())
        except effnet.EffnetError as error:
            return {"error": str(error)}
        row = await self.probabilities(image)
        best = np.argsort(row)[::-1][:5]
        return {"predictions": [{"label": self.model.class_names[i], "probability": float(row[i])} for i in best]}


def app_of(args: dict) -> serve.Application:
    """Return the application for `serve run`."""
    return Classifier.bind(args["bundle"])


if __name__ == "__main__":
    bundle, image, port = [*sys.argv[1:], "8000"][:3]
    serve.start(http_options={"port": int(port)})
    serve.run(app_of({"bundle": bundle}))
    with open(image, "rb") as file:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}", data=file.read())
    print(urllib.request.urlopen(asked, timeout=300).read().decode())
    serve.shutdown()
