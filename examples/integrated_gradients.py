"""Integrated gradients of a bundle's network through captum: at pixels, where `effnet explain` has places of a map.

pip install captum
python examples/integrated_gradients.py effnet-photos cat.jpg --out cat-gradients.png

It needs torch and a pass for each step; `effnet explain` needs neither, and one pass.
"""

import argparse

import numpy as np
import torch
from captum.attr import IntegratedGradients
from PIL import Image

import effnet
from effnet.data.preprocess import normalize
from effnet.data.view.evaluation import prepare_image
from effnet.report.explanation.overlay import overlay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", help="an image of the attributions, to write")
    args = parser.parse_args()

    module, predictor = effnet.load_module(args.bundle), effnet.load(args.bundle)
    preprocess, names = predictor.config.preprocess, predictor.config.class_names
    image = prepare_image(args.image, preprocess)
    pixels = torch.from_numpy(normalize(image[None], preprocess)).permute(0, 3, 1, 2)
    with torch.no_grad():
        first = int(module(pixels).argmax())
    # The baseline of zeros is an image of the mean colour.
    found, error = IntegratedGradients(module).attribute(
        pixels, target=first, n_steps=args.steps, internal_batch_size=10, return_convergence_delta=True
    )
    # What the attributions add up to: the class's value here, less that of the baseline.
    print(f"{names[first]}: attributions sum to {float(found.sum()):+.3f}, error {float(error.abs()):.3f}")
    heat = found[0].sum(0).numpy()
    if args.out:
        # A single pixel may be far above all others.
        limit = float(np.quantile(np.abs(heat), 0.99)) or 1.0
        Image.fromarray(overlay(image, heat, limit=limit)).save(args.out)
        print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
