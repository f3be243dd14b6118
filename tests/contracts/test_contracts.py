"""What must hold for every network: the named ones and random ones."""

import dataclasses
import json
import math
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs
from torch.utils.flop_counter import FlopCounterMode

from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost, layer_costs
from effnet.arch.describe import describe
from effnet.arch.layers import INPUT, named_layers
from effnet.arch.scale import scale, truncate, with_total_stride
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.nn.network import Network, build
from effnet.weights.folding import random_weights

random_networks = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def build_without_memory(spec: ArchSpec) -> Network:
    with torch.device("meta"):
        return build(spec).eval()


@pytest.fixture(scope="module", params=NAMES)
def named(request: pytest.FixtureRequest) -> Network:
    """A named network, built once for all tests that need it."""
    return build_without_memory(get_spec(request.param))


def check_parameters_and_names(network: Network) -> None:
    spec, found = network.spec, cost(network.spec)
    assert sum(parameter.numel() for parameter in network.parameters()) == found.params
    statistics = {name: t for name, t in network.named_buffers() if not name.endswith("num_batches_tracked")}
    assert sum(tensor.numel() for tensor in statistics.values()) == found.buffers
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == expected_state(spec)
    modules = dict(network.named_modules())
    assert {name for name, layer in named_layers(spec) if layer.op not in ("add", "mul")} <= set(modules)


def expected_state(spec: ArchSpec) -> dict[str, tuple[int, ...]]:
    """Return key and shape of every parameter and buffer that the layers ask for."""
    state: dict[str, tuple[int, ...]] = {}
    for name, layer in named_layers(spec):
        out = layer.out_channels
        if layer.op == "conv":
            state[f"{name}.weight"] = (
                out,
                layer.in_channels // layer.groups,
                layer.kernel_size,
                layer.kernel_size,
            )
        elif layer.op == "linear":
            state[f"{name}.weight"] = (out, layer.in_channels)
        elif layer.op == "channel_conv":
            state[f"{name}.weight"] = (1, 1, layer.kernel_size)
        elif layer.op == "norm":
            parts = ("weight", "bias", "running_mean", "running_var")
            state |= {f"{name}.{part}": (out,) for part in parts} | {f"{name}.num_batches_tracked": ()}
        if layer.bias:
            state[f"{name}.bias"] = (out,)
    return state


def check_macs_and_sides(network: Network, resolution: int) -> None:
    """Run the network and compares what torch counts, and the map behind every module, with the table."""
    spec = network.spec
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: tuple(output.shape)}))
    # Norms change no shape and count no multiplications, but take most of the time without memory.
    norms = mock.patch.object(torch.nn.BatchNorm2d, "forward", lambda self, x: x)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), norms:
        network(torch.zeros(1, spec.in_channels, resolution, resolution, device="meta"))
    assert counter.get_total_flops() == 2 * cost(spec, resolution=resolution).macs
    for row in layer_costs(spec, resolution=resolution):
        if row.op == "linear":
            assert seen[row.name] == (1, row.out_channels)
        elif row.op not in ("add", "mul"):
            assert seen[row.name] == (1, row.out_channels, *row.size), row.name


def check_layers(spec: ArchSpec) -> None:
    layers = named_layers(spec)
    widths = {INPUT: spec.in_channels}
    for name, layer in layers:
        assert name not in widths
        if layer.op == "concat":
            assert layer.in_channels == layer.out_channels == sum(widths[source] for source in layer.inputs)
        else:
            assert layer.in_channels == widths[layer.inputs[0]]  # each input is there before it is read
            assert all(widths[source] == layer.out_channels for source in layer.inputs[1:])
        assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0
        widths[name] = layer.out_channels
    read = {source for _, layer in layers for source in layer.inputs}
    assert set(widths) - read == {layers[-1][0]}  # nothing is computed in vain


def check_pure(spec: ArchSpec, edit) -> None:
    before = spec_to_dict(spec)
    first, second = edit(spec), edit(spec)
    assert first == second
    assert first.name == second.name
    assert spec_to_dict(spec) == before
    assert spec_from_dict(spec_to_dict(first)) == first
    check_layers(first)
    assert cost(first).params > 0


def test_a_named_network_has_the_parameters_and_names_that_its_spec_says(named):
    check_parameters_and_names(named)


def test_torch_counts_the_same_multiplications_for_a_named_network_at_its_own_resolution(named):
    check_macs_and_sides(named, named.spec.resolution)


@pytest.mark.parametrize("name", ["b0", "efficientnet_b0", "edgetpu_s", "resnet18"])
@pytest.mark.parametrize("resolution", [1, 33, 47])
def test_maps_of_odd_sides_are_as_large_as_the_table_says(name, resolution):
    check_macs_and_sides(build_without_memory(get_spec(name)), resolution)


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_of_a_named_network_are_a_graph_in_order(name):
    check_layers(get_spec(name))


@pytest.mark.parametrize("name", NAMES)
def test_edits_of_a_named_network_are_pure_and_valid(name):
    spec = get_spec(name)
    for phi in (-3.0, -0.7, 0.4, 1.0):
        check_pure(spec, lambda spec, phi=phi: scale(spec, phi=phi))
    check_pure(spec, lambda spec: with_total_stride(spec, 4))
    check_pure(spec, lambda spec: truncate(spec, 2))


@random_networks
@given(specs(), st.integers(1, 40))
def test_a_random_network_is_what_its_spec_says(spec, resolution):
    check_layers(spec)
    network = build_without_memory(spec)
    check_parameters_and_names(network)
    check_macs_and_sides(network, resolution)


@random_networks
@given(specs())
def test_a_random_network_survives_json(spec):
    again = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert again == spec
    assert again.name == spec.name
    assert describe(again) == describe(spec)


@random_networks
@given(
    specs(even_stages=True),
    st.floats(-8, 4),
    st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    st.sampled_from((1, 2, 4, 8, 16)),
)
def test_edits_of_a_random_network_are_pure_and_valid(spec, phi, factors, total_stride):
    check_pure(spec, lambda spec: scale(spec, phi=phi))
    check_pure(spec, lambda spec: scale(spec, width=factors[0], depth=factors[1], resolution=24))
    check_pure(spec, lambda spec: with_total_stride(spec, total_stride))
    assert with_total_stride(spec, total_stride).total_stride <= total_stride


@settings(random_networks, max_examples=40)
@given(specs(even_stages=True), st.floats(0.2, 3), st.floats(0.2, 3))
def test_scaling_a_random_network_creates_no_shortcut(spec, width, depth):
    scaled = scale(spec, width=width, depth=depth)
    for before, after in zip(spec.stages, scaled.stages, strict=True):
        # A shortened stage keeps the blocks that change the size, wherever they stand; a longer one begins as it was.
        remaining = iter(before)
        for block in after[: len(before)]:
            assert any(is_scaled_from(old, block) for old in remaining), f"{block} is none of {before}"


def is_scaled_from(old: BlockSpec, new: BlockSpec) -> bool:
    return all(getattr(old, name) == getattr(new, name) for name in ("kind", "kernel_size", "stride", "residual"))


@settings(random_networks, max_examples=30)
@given(specs())
def test_random_weights_have_the_folded_parameters_of_the_cost(spec):
    arrays = random_weights(spec, seed=1)
    assert sum(array.size for array in arrays.values()) == cost(spec).folded_params
    biases = [array.size for name, array in arrays.items() if name.endswith(".bias")]
    assert sum(biases) == cost(spec).output_channels
    assert all((random_weights(spec, seed=1)[name] == array).all() for name, array in arrays.items())


@random_networks
@given(specs())
def test_peak_activations_are_what_a_naive_walk_finds(spec):
    assert cost(spec).peak_activations == naive_peak(spec)


def naive_peak(spec: ArchSpec) -> int:
    """Count, at every layer, the distinct buffers that this or a later layer still reads, and its own."""
    layers = named_layers(spec)
    sizes = {row.name: row.out_channels * math.prod(row.size) for row in layer_costs(spec)}
    sizes[INPUT] = spec.in_channels * spec.resolution**2
    buffer = {INPUT: INPUT}  # layer: the layer whose memory holds its output
    peak = sizes[INPUT]
    for index, (name, layer) in enumerate(layers):
        later = {source for _, other in layers[index + 1 :] for source in other.inputs}
        in_place = layer.op in ("norm", "act", "mul", "add") and layer.inputs[0] not in later
        buffer[name] = buffer[layer.inputs[0]] if in_place else name
        alive = {buffer[source] for source in later | set(layer.inputs) if source in buffer} | {buffer[name]}
        peak = max(peak, sum(sizes[owner] for owner in alive))
    return peak


@settings(random_networks, max_examples=30)
@given(specs(), st.data())
def test_truncation_keeps_a_random_networks_first_stages(spec, data):
    count = data.draw(st.integers(1, len(spec.stages)))
    check_pure(spec, lambda spec: truncate(spec, count))
    assert truncate(spec, count).stages == spec.stages[:count]
    assert dataclasses.replace(truncate(spec, count), stages=spec.stages, pooled=spec.pooled) == spec
    assert set(truncate(spec, count).pooled) <= set(spec.pooled)
