"""The public functions of specs take names."""

import pytest

from effnet import build, cost, describe, get_spec, scale, solve_phi
from effnet.errors import SpecError


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_b0", "resnet18"])
def test_a_name_is_accepted_for_its_spec(name):
    spec = get_spec(name)
    assert cost(name) == cost(spec)
    assert describe(name) == describe(spec)
    assert scale(name, phi=-3) == scale(spec, phi=-3)
    assert solve_phi(name, max_macs=10**8) == solve_phi(spec, max_macs=10**8)
    assert build(name, seed=0).spec == spec


def test_what_names_no_network_is_an_error():
    for function in (cost, describe, build, lambda network: scale(network, phi=1)):
        with pytest.raises(SpecError, match="did you mean 'b0'"):
            function("b00")
        with pytest.raises(SpecError, match="must be an ArchSpec or a name of `effnet models`; got NoneType"):
            function(None)
