"""Export a bundle to the toy's file."""

import numpy as np

from effnet.runtimes.onnxruntime.writer import onnx_model
from effnet.system.files import written_whole


def write(target, folder, config, state, *, images, quantization):
    """Write model.npz, or features.npz for a bundle without a classifier, into `folder`."""
    with written_whole(folder / target.file) as beside, open(beside, "wb") as file:
        np.savez(file, onnx=np.frombuffer(onnx_model(config, state).SerializeToString(), np.uint8))
