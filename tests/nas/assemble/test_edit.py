"""The weights of alternatives: exact if nothing is lost, and the least squares otherwise."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_trained, specs
from test_alternatives import drawn

from effnet import get_spec
from effnet.arch.scale import scale
from effnet.bundle.weights import state_arrays
from effnet.nas.assemble.alternatives import HEAD, alternatives, own
from effnet.nas.assemble.edit import edited, refitted, refitted_part
from effnet.nas.assemble.score import logits_of
from effnet.runtimes.onnxruntime.graph import to_onnx
from effnet.weights.folding import fold_norms

pytestmark = pytest.mark.usefixtures("one_thread")


def make_images(spec, *, count=48):
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, spec.in_channels, spec.resolution, spec.resolution, generator=generator).split(16))


def plain_order(spec):
    return {part: tuple(range(own(spec, part).channels)) for part in alternatives(spec)}


def small(name="lite0", *, resolution=48):
    """Return a network with two blocks in most stages, narrow enough for milliseconds."""
    return scale(get_spec(name, num_classes=5), width=0.25, depth=0.6, resolution=resolution)


@settings(max_examples=10, deadline=None)
@given(spec=specs(min_classes=1), data=st.data())
def test_kept_parts_and_all_channels_change_nothing(spec, data):
    network = build_trained(spec, resolution=spec.resolution, seed=data.draw(st.integers(0, 9))).eval()
    images = make_images(spec, count=8)
    kept = {part: own(spec, part) for part in alternatives(spec)}
    order = {part: tuple(data.draw(st.permutations(range(found.channels)))) for part, found in kept.items()}
    found, _ = edited(network, kept, order)
    assert found.spec == spec
    torch.testing.assert_close(logits_of(found, images), logits_of(network, images))


def test_a_dropped_block_is_an_identity():
    spec = small()
    network, images = build_trained(spec, resolution=48).eval(), make_images(spec)
    part = "stages.5.1"
    gone = {part: dataclasses.replace(own(spec, part), dropped=True)}
    found, _ = edited(network, gone, plain_order(spec))
    assert refitted_part(network, part, gone, plain_order(spec), []) is None
    network.stages[5][1] = torch.nn.Identity()
    torch.testing.assert_close(logits_of(found, images), logits_of(network, images))


def test_a_smaller_kernel_is_exact_if_the_rest_of_the_larger_one_is_zero():
    spec = small()
    network, images = build_trained(spec, resolution=48).eval(), make_images(spec)
    parts = [
        part
        for part, found in alternatives(spec).items()
        if any(a.kernel_size == 3 != found[0].kernel_size for a in found)
    ]
    assert len(parts) >= 6  # with a stride, and without
    with torch.no_grad():
        for part in parts:
            weight = network.get_submodule(part).depthwise.conv.weight
            weight[:, :, [0, 4]], weight[..., [0, 4]] = 0, 0
    choice = {part: dataclasses.replace(own(spec, part), kernel_size=3) for part in parts}
    for found in (edited(network, choice, plain_order(spec))[0], refitted(network, choice, plain_order(spec), images)):
        torch.testing.assert_close(logits_of(found, images), logits_of(network, images), atol=1e-3, rtol=1e-3)


@pytest.mark.elsewhere
@pytest.mark.parametrize("name,part", [("lite0", "stages.4.1"), ("b0", "stages.2.0"), ("b0", HEAD)])
def test_the_closed_form_is_no_worse_than_slicing_on_the_calibration_images(name, part):
    spec = small(name)
    network, images = build_trained(spec, resolution=48).eval(), make_images(spec)
    inputs = inputs_of(network, part, images)
    found = [each for each in alternatives(spec, shares=(0.5,), round_to=4)[part][1:] if not each.dropped]
    assert len(found) == {"lite0": 3, "b0": 23}[name] or part == HEAD

    def outputs(other, module):
        run = (lambda x: other.forward_head(module(x))) if part == HEAD else module
        return logits_of(run, inputs)

    wanted = outputs(network, network.get_submodule(part))
    for each in found:
        choice = {part: each}
        sliced, _ = edited(network, choice, plain_order(spec))
        with torch.no_grad():
            solved = refitted_part(network, part, choice, plain_order(spec), [(x, x) for x in inputs])
        cut = outputs(sliced, sliced.get_submodule(part))
        lost = [float((found - wanted).square().mean()) for found in (cut, logits_of(solved, inputs))]
        assert lost[1] < lost[0], choice


def inputs_of(network, part, images):
    """Return the inputs of a part of the network for batches of images."""
    inputs = []
    handle = network.get_submodule(part).register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    logits_of(network, images)
    handle.remove()
    return inputs


def test_the_projection_of_half_a_middle_is_as_good_as_numpys_least_squares():
    """On all positions of the images; the rest is the ridge penalty."""
    spec = small(resolution=32)
    network, part = build_trained(spec, resolution=32).eval(), "stages.4.1"
    x = torch.cat(inputs_of(network, part, make_images(spec, count=64)))
    block, order = network.get_submodule(part), plain_order(spec)
    half = block.expand.conv.out_channels // 2
    choice = {part: dataclasses.replace(own(spec, part), channels=half)}
    with torch.no_grad():
        solved = refitted_part(network, part, choice, order, [(x, x)])
        middle = block.depthwise(block.expand(x))
        wanted = rows_of(block.project.conv(middle))
        norm = block.project.norm
        gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).double().numpy()
        lost = np.square(rows_of(solved(x) - block(x)) / gain).mean()
        sliced = rows_of(middle)[:, :half] @ block.project.conv.weight.flatten(1)[:, :half].T.double().numpy()
    rows = np.c_[rows_of(middle)[:, :half], np.ones(len(wanted))]
    least = np.square(rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0] - wanted).mean()
    assert least <= lost <= least + 0.1 * (np.square(sliced - wanted).mean() - least)


def rows_of(x):
    """Return every position of feature maps as a row [n, channels]."""
    return x.transpose(0, 1).flatten(1).T.double().numpy()


@pytest.mark.elsewhere
@settings(max_examples=10, deadline=None)
@given(spec=specs(min_classes=2), data=st.data())
def test_any_assembled_network_runs_in_onnx_runtime(spec, data):
    import onnxruntime

    network = build_trained(spec, resolution=spec.resolution).eval()
    choice = drawn(data, spec, round_to=2, shares=(0.5,))
    found = refitted(network, choice, plain_order(spec), make_images(spec, count=16))
    config = {"mean": (0.5,) * spec.in_channels, "std": (0.25,) * spec.in_channels, "resolution": spec.resolution}
    model = to_onnx(found.spec, fold_norms(found.spec, state_arrays(found)), **config)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(0).integers(
        0, 256, (1, spec.resolution, spec.resolution, spec.in_channels), dtype=np.uint8
    )
    pixels = torch.from_numpy((image / 255 - 0.5) / 0.25).float().permute(0, 3, 1, 2)
    answers = session.run(None, {session.get_inputs()[0].name: image})[0]
    np.testing.assert_allclose(answers, logits_of(found, [pixels]).softmax(1).numpy(), atol=2e-4)
