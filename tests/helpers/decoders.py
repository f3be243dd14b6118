"""Networks with a decoder whose BatchNorm layers and weights are like those of trained ones."""

import dataclasses
import functools

import numpy as np
import torch

from effnet.arch.catalog import get_spec
from effnet.arch.decoders.record import AnchorHead, Detector, Pyramid, Segmenter, UNet
from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import build_dense
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export
from effnet.tasks import detection, segmentation
from effnet.tasks.registry import register

B0 = dataclasses.replace(get_spec("b0"), resolution=128, head_channels=0, num_classes=3)
LITE0 = dataclasses.replace(get_spec("lite0"), resolution=160)
SMP = UNet(channels=(32, 16, 16, 8, 8), separable=False, last_kernel=3, skips_stem=True, activation="relu")
# At 160 pixels level 5 has 5 places and level 6 has 3: a resize by no whole number.
NETWORKS = {
    "points": with_detector(LITE0, 6),
    "wide": dataclasses.replace(with_detector(LITE0, 6), height=96),
    "pyramid": with_segmenter(LITE0, 5),
    "unet": dataclasses.replace(with_segmenter(LITE0, 5, kind="unet"), height=192),
    "anchors": dataclasses.replace(
        B0,
        decoder=Detector(
            neck=Pyramid(channels=32, cells=2, max_level=7, fusion="fast", redundant_bias=True),
            head=AnchorHead(repeats=2),
        ),
    ),
    "smp": dataclasses.replace(
        B0, padding="symmetric",
        decoder=Segmenter(decoder=SMP),
    ),
}  # fmt: skip


def settled(spec, images=None):
    """Return a network in evaluation mode whose BatchNorm layers hold the statistics of `images`, else of noise."""
    torch.manual_seed(0)
    found = build_dense(spec, seed=1)
    images = torch.randn(2, 3, *spec.input_size) if images is None else images
    for module in found.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.1)
        if hasattr(module, "weight") and module.weight.shape == (3,):
            torch.nn.init.normal_(module.weight)  # the weights of a fusion, some negative
    with torch.no_grad():
        found.train()(images)
    return found.eval()


def arrays(network):
    """Return the state dict as arrays."""
    return {name: value.numpy() for name, value in network.state_dict().items()}


def config_of(spec):
    """Return the config of a bundle of a detector or segmenter, whose images are normalised with a half."""
    half = (0.5,) * spec.in_channels
    return ModelConfig(
        arch=spec,
        preprocess=Preprocess(
            resolution=spec.resolution, height=spec.height, mode="corner", crop=1.0, mean=half, std=half
        ),
        class_names=tuple(f"class {number}" for number in range(spec.num_classes)),
        task=register(detection.TASK if isinstance(spec.decoder, Detector) else segmentation.TASK).name,
    )


def outputs_of(network, images):
    """Return the outputs of a network by name for uint8 images [batch, height, width, channels], as arrays."""
    with torch.no_grad():
        found = network((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    return {name: value.numpy() for name, value in found.items()}


def parted(engine, rows):
    """Return the rows of an engine's run as its outputs by name, in their shapes."""
    found, first = {}, 0
    for output in engine.outputs:
        found[output.name or "mask"] = rows[:, first : first + output.width].reshape(-1, *output.shape)
        first += output.width
    return found


def small(spec):
    """Return the network with one block a stage and a narrow decoder, for what takes long to write."""
    stages = tuple(blocks[:1] for blocks in spec.stages)
    decoder = spec.decoder
    if isinstance(decoder, Detector):
        neck, head = decoder.neck, decoder.head
        decoder = Detector(
            neck=dataclasses.replace(neck, channels=16, cells=1), head=dataclasses.replace(head, repeats=1)
        )
    elif isinstance(decoder.decoder, UNet):
        unet = decoder.decoder
        decoder = Segmenter(decoder=dataclasses.replace(unet, channels=tuple(8 for _ in unet.channels)))
    else:
        pyramid = decoder.decoder
        neck = dataclasses.replace(pyramid.neck, channels=16, cells=1)
        decoder = Segmenter(decoder=dataclasses.replace(pyramid, neck=neck, channels=16))
    return dataclasses.replace(spec, stages=stages, decoder=decoder)


@functools.cache
def made(name):
    """Return a small network, images, and its outputs for them."""
    network = settled(small(NETWORKS[name]))
    images = np.random.default_rng(0).integers(0, 256, (2, *network.spec.input_size, 3), dtype=np.uint8)
    return network, images, outputs_of(network, images)


def written(name, target, folder, **options):
    """Return the engine of a file of a small network."""
    network, images, _ = made(name)
    options = {"images": images, **options} if target.endswith("int8") else options
    return open_engine(write_export(target, folder, config_of(network.spec), arrays(network), **options))


def assert_outputs_of_torch(name, target, folder):
    """Assert that a file gives the outputs of the torch network, under their names, in their shapes."""
    network, images, expected = made(name)
    engine = written(name, target, folder)
    assert engine.size == network.spec.input_size
    assert [output.name for output in engine.outputs] in (list(expected), [""])  # ExecuTorch names none of one
    for batch in (1, 2):
        found = parted(engine, engine.run(images[:batch]))
        for output, wanted in expected.items():
            np.testing.assert_allclose(found[output], wanted[:batch], rtol=0, atol=1e-4 * np.abs(wanted).max())


def correlations(name, target, folder, **options):
    """Return the correlation of each output of a file with that of the torch network."""
    _, images, expected = made(name)
    engine = written(name, target, folder, **options)
    found = parted(engine, engine.run(images))
    return {output: np.corrcoef(found[output].ravel(), expected[output].ravel())[0, 1] for output in expected}
