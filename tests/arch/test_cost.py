import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost, layer_costs
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.errors import SpecError

# Stem 1 -> 2 at stride 2, then one mbconv with squeeze-and-excitation and a shortcut, no head, 3 classes.
TINY = ArchSpec(
    in_channels=1,
    num_classes=3,
    resolution=8,
    stem=StemSpec(channels=2),
    stages=(stage("mbconv", repeats=1, expand_ratio=2, in_channels=2, out_channels=2, se_ratio=0.5),),
    head_channels=0,
)


def test_counts_of_a_network_small_enough_for_pencil_and_paper():
    found = cost(TINY)
    convolutions = 9 * 2 + 2 * 4 + 9 * 4 + (4 * 1 + 1) + (1 * 4 + 4) + 4 * 2  # stem, expand, depthwise, se, project
    norms = 2 * (2 + 4 + 4 + 2)
    assert found.params == convolutions + norms + 2 * 3 + 3
    assert found.macs == 16 * (9 * 2 + 2 * 4 + 9 * 4 + 4 * 2) + 4 + 4 + 2 * 3
    assert found.activations == 16 * (2 + 4 + 4 + 2) + 1 + 4 + 3
    assert found.buffers == 2 * (2 + 4 + 4 + 2)
    assert found.folded_params == found.params - (2 + 4 + 4 + 2)
    # While the depthwise convolution runs: the block's input (for the shortcut), its own input and its output.
    assert found.peak_activations == 16 * (2 + 4 + 4)
    assert found.peak_memory_bytes == 4 * found.peak_activations


def test_weight_bytes_of_each_precision():
    found = cost(TINY)
    channels = 2 + 4 + 4 + 1 + 4 + 2 + 3
    kernels = found.folded_params - channels
    assert found.weight_bytes() == found.weight_bytes("fp32") == 4 * found.folded_params
    assert found.weight_bytes("fp16") == 2 * found.folded_params
    assert found.weight_bytes("int8") == kernels + 4 * channels + 4 * channels  # 32-bit biases and scales


def test_an_unknown_precision_is_refused():
    with pytest.raises(SpecError, match="int4"):
        cost(TINY).weight_bytes("int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("resolution", [0, -1, 1.5, "224", True])
def test_a_resolution_that_is_no_positive_integer_is_refused(resolution):
    with pytest.raises(SpecError, match=f"resolution .* got {resolution!r}"):
        cost(TINY, resolution=resolution)
    with pytest.raises(SpecError, match="resolution"):
        layer_costs(TINY, resolution=resolution)


def test_the_resolution_changes_macs_and_activations_but_no_parameters():
    own, large = cost(get_spec("b0")), cost(get_spec("b0"), resolution=448)
    assert (own.resolution, large.resolution) == (224, 448)
    assert large.params == own.params
    assert 3.95 * own.macs < large.macs < 4 * own.macs  # squeeze-and-excitation and classifier do not grow
    assert large.peak_activations == 4 * own.peak_activations


def test_maps_of_odd_sides_round_up():
    sides = {row.name: row.size[0] for row in layer_costs(get_spec("b0"), resolution=225)}
    assert sides["stem.conv"] == 113
    assert sides["stages.1.0.depthwise.conv"] == 57
    assert sides["stages.1.0.se.reduce"] == sides["pool"] == sides["classifier"] == 1
