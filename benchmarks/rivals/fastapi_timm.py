"""`python -m benchmarks.rivals.fastapi_timm PORT`: the server of the usual tutorial.

FastAPI, timm's network, its transforms, one image at a time, torch's own threads. It takes a form with the field
`content`. The classifier is random, since no time depends on it.
"""

import io
import sys
import warnings
from typing import Any

import fastapi
import torch
import uvicorn
from PIL import Image

from benchmarks.peers import import_timm

NETWORK = "tf_efficientnet_lite0"


def main() -> None:
    """Serve until the process is ended."""
    warnings.simplefilter("ignore")
    timm = import_timm()
    from timm.data import create_transform, resolve_data_config

    model = timm.create_model(NETWORK).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    app = fastapi.FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(content: fastapi.UploadFile) -> dict[str, Any]:
        image = Image.open(io.BytesIO(content.file.read())).convert("RGB")
        with torch.inference_mode():
            found = model(transform(image)[None]).softmax(1)[0].topk(5)
        return {"scores": found.values.tolist(), "classes": found.indices.tolist()}

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
