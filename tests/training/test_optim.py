"""Optimisers against timm's and TensorFlow's rule in NumPy, their groups, and their checkpoints."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peers import import_timm
from effnet import get_spec
from effnet.nn.network import build
from effnet.training.optim.optimisers import Lamb, RMSPropTF, make_optimizer
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.state.checkpoint import load_checkpoint_, save_checkpoint
from effnet.training.state.position import Position
from effnet.training.state.state import State

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")

OPTIMIZERS = {
    "adamw": {},
    "sgd": {"optimizer.momentum": 0.9, "optimizer.nesterov": True},
    "sgd without momentum": {"optimizer.name": "sgd", "optimizer.momentum": 0.0, "train.lr": 0.2},
    "rmsprop_tf": {"optimizer.eps": 1e-3, "optimizer.decay": 0.9},
    "lamb": {"optimizer.eps": 1e-6, "optimizer.decay": 0.999},
}


def recipe_of(name, **more):
    return with_values(Recipe(), {"optimizer.name": name, "train.lr": 0.02} | OPTIMIZERS[name] | more)


def network():
    """Return channels-last kernels, depthwise kernels, BatchNorm, matrices and biases, as in an EfficientNet."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return layers.to(memory_format=torch.channels_last)


def state_of(model, optimizer):
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return State(model=model, average=network(), optimizer=optimizer, scaler=scaler)


def one_step(model, optimizer, number):
    generator = torch.Generator().manual_seed(number)
    images, labels = torch.randn(6, 3, 9, 9, generator=generator), torch.arange(6) % 4
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def parameters_after(make, gradients):
    """Return two parameters after an optimiser's steps with these gradients."""
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,))]
    optimizer = make(parameters)
    for number, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + number)  # a changing rate shows where it enters
        for parameter, value in zip(parameters, gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()
    return parameters


def random_gradients(steps=12):
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator)) for _ in range(steps)]


@pytest.mark.elsewhere
@NEEDS_TIMM
@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("weight_decay", [1e-2, 0.0])
def test_rmsprop_is_timms(momentum, weight_decay):
    import_timm()
    from timm.optim import RMSpropTF as Theirs

    ours = parameters_after(
        lambda p: RMSPropTF(
            [{"params": p, "weight_decay": weight_decay}], lr=0.1, momentum=momentum, decay=0.9, eps=1e-3
        ),
        random_gradients(),
    )
    theirs = parameters_after(
        lambda p: Theirs(p, lr=0.1, momentum=momentum, alpha=0.9, eps=1e-3, weight_decay=weight_decay),
        random_gradients(),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.elsewhere
@NEEDS_TIMM
@pytest.mark.parametrize("weight_decay", [0.1, 0.0])
def test_lamb_is_timms_without_its_clipping(weight_decay):
    import_timm()
    from timm.optim import Lamb as Theirs

    ours = parameters_after(
        lambda p: Lamb([{"params": p, "weight_decay": weight_decay}], lr=0.1, betas=(0.9, 0.99), eps=1e-6),
        random_gradients(),
    )
    theirs = parameters_after(
        lambda p: Theirs(p, lr=0.1, betas=(0.9, 0.99), eps=1e-6, weight_decay=weight_decay, max_grad_norm=None),
        random_gradients(),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_lamb_moves_weights_of_length_zero():
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = Lamb([{"params": [parameter], "weight_decay": 0.1}], lr=0.1, betas=(0.9, 0.99), eps=1e-6)
    parameter.grad = torch.tensor([1.0, -2.0, 0.5])
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.tensor([-0.1, 0.1, -0.1]), rtol=1e-4, atol=0)


def test_rmsprop_is_tensorflows_rule():
    """ms = d ms + (1 - d) g^2 from 1; mom = m mom + lr g / sqrt(ms + eps): the kernel ApplyRMSProp, in float64."""
    momentum, decay, eps, weight_decay = 0.9, 0.9, 1e-3, 1e-2

    def make(parameters):
        groups = [{"params": parameters, "weight_decay": weight_decay}]
        return RMSPropTF(groups, lr=0.1, momentum=momentum, decay=decay, eps=eps)

    ours = parameters_after(make, random_gradients())
    start = parameters_after(lambda p: torch.optim.SGD(p, lr=0.0), [])
    for place, parameter in enumerate(ours):
        w = start[place].detach().double().numpy()
        square, move = np.ones_like(w), np.zeros_like(w)
        for number, gradient in enumerate(random_gradients()):
            g = gradient[place].double().numpy() + weight_decay * w  # d/dw of weight_decay * sum(w^2) / 2
            square += (g**2 - square) * (1 - decay)
            move = momentum * move + 0.05 / (1 + number) * g / np.sqrt(square + eps)
            w = w - move
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-5, atol=1e-6)


def test_torchs_own_rmsprop_is_another_rule():
    """Show why we have our own RMSProp; fails if torch's ever changes."""
    ours = parameters_after(
        lambda p: RMSPropTF([{"params": p}], lr=0.1, momentum=0.9, decay=0.9, eps=1e-3), random_gradients()
    )
    theirs = parameters_after(
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, alpha=0.9, eps=1e-3), random_gradients()
    )
    assert (ours[0] - theirs[0]).abs().max() > 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_goes_on_from_a_checkpoint_as_if_nothing_had_been(name, tmp_path):
    recipe = recipe_of(name)
    whole, parts, again = network(), network(), network()
    first, second, third = (make_optimizer(model, recipe) for model in (whole, parts, again))
    for number in range(5):
        one_step(whole, first, number)
    for number in range(2):
        one_step(parts, second, number)
    save_checkpoint(tmp_path, Position(step=2), state_of(parts, second))
    assert load_checkpoint_(tmp_path, state_of(again, third), say=print).step == 2
    for number in range(2, 5):
        one_step(again, third, number)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(whole[0].weight, network()[0].weight)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_makes_a_loss_small(name):
    model = network()
    optimizer = make_optimizer(model, recipe_of(name))
    images, labels = torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4

    def loss():
        return nn.functional.cross_entropy(model(images), labels)

    before = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.8 * before


def test_an_optimiser_of_ours_takes_no_closure():
    with pytest.raises(TypeError, match="no closure"):
        make_optimizer(network(), recipe_of("lamb")).step(lambda: 0.0)


def decays(model, recipe):
    """Return the weight decay of every parameter by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, recipe).param_groups
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["b0", "v2_s", "resnet18"])
def test_norms_are_never_decayed_and_biases_where_the_recipe_says_so(name):
    model = build(get_spec(name, num_classes=3))
    kernels = {n for n, p in model.named_parameters() if p.ndim > 1}
    layers = [n for n, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    norms = {f"{n}.{which}" for n in layers for which in ("weight", "bias")}
    biases = {n for n, _ in model.named_parameters()} - kernels - norms
    assert "classifier.bias" in biases
    plain = decays(model, with_values(Recipe(), {"optimizer.weight_decay": 0.3}))
    assert {n for n, decay in plain.items() if decay == 0.3} == kernels
    assert {n for n, decay in plain.items() if decay == 0.0} == biases | norms
    everything = decays(model, with_values(Recipe(), {"optimizer.weight_decay": 0.3, "optimizer.decay_vectors": True}))
    assert {n for n, decay in everything.items() if decay == 0.3} == kernels | biases


def part_of(name):
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "stages" else words[0]


def test_layer_decay_slows_each_part_by_its_distance_from_the_classifier():
    spec = get_spec("b0", num_classes=3)
    model = build(spec)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, with_values(Recipe(), {"train.layer_decay": 0.5, "optimizer.weight_decay": 0.3}))
    scales, decayed = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert scales.setdefault(part_of(name), group["lr_scale"]) == group["lr_scale"]
            decayed[name] = group["weight_decay"]
    assert not names  # every parameter is in one group
    stages = [f"stages.{i}" for i in range(len(spec.stages))]
    order = ["stem", *stages, "head", "classifier"]
    assert scales == {part: 0.5 ** (len(order) - 1 - place) for place, part in enumerate(order)}
    kernels = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert {name for name, decay in decayed.items() if decay == 0.3} == kernels


@pytest.mark.parametrize(("name", "torchs"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_an_optimiser_without_the_compiler_takes_torchs_steps(name, torchs):
    recipe = with_values(Recipe(), {"optimizer.name": name})
    ours, theirs = (nn.Linear(3, 2), nn.Linear(3, 2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours, recipe)
    groups = [{**group, "params": [*theirs.parameters()][i : i + 1]} for i, group in enumerate(optimizer.param_groups)]
    other = torchs(groups)
    for _ in range(3):
        for model, moved in ((ours, optimizer), (theirs, other)):
            moved.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            moved.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
