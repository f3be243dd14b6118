"""A cold `effnet predict` of one image against importing torch: `python -m benchmarks.cold_predict`."""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import finish, options, seconds_of
from effnet import build, get_spec
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.runtimes.onnxruntime.writer import export_onnx


def main() -> None:
    """Run B0 at 224 pixels on a 500 x 375 photograph-sized image, and `import torch`, alternately."""
    args = options(__doc__, n=10)
    samples: dict[str, list[float]] = {"effnet predict": [], "import torch": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec = get_spec("b0")
        names = tuple(f"class {i}" for i in range(1000))
        config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=224), class_names=names)
        state = state_arrays(build(spec, seed=0))
        save_bundle(folder, config, state)
        export_onnx(folder, config, state)
        pixels = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "image.jpg")
        predict = [sys.executable, "-m", "effnet", "predict", scratch, str(folder / "image.jpg")]
        for _ in range(args.n):
            samples["effnet predict"].append(seconds_of(predict))
            samples["import torch"].append(seconds_of([sys.executable, "-c", "import torch"]))
    figure = statistics.median(samples["effnet predict"])
    finish("cold_predict", args, figure=figure, goal=1.0, unit="s", better="lower", samples=samples)


if __name__ == "__main__":
    main()
