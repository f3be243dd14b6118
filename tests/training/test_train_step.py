import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from strategies import build_trained
from tiny_runs import PREPROCESS, RECIPE, Stop, part_of, run, run_saving, tiny_dataset, tiny_spec, weights
from torch.nn import functional

from effnet.bundle.names import CHECKPOINT
from effnet.errors import EffnetError
from effnet.nn.network import build
from effnet.progress import Step
from effnet.training.classification.learning import ClassesValidated
from effnet.training.device import make_scaler, to_input
from effnet.training.distributed.ranks import ALONE
from effnet.training.failures import DIVERGED, check_finite
from effnet.training.loop import train
from effnet.training.losses import cross_entropy
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.state.position import Position
from effnet.training.state.state import make_state
from effnet.training.step import Stepper, num_parts, split_batch

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    def broken(model, batch):
        return cross_entropy()(model, batch) * float("nan")

    with pytest.raises(EffnetError, match=r"the loss became nan at step 1 of epoch 1.*use a lower one"):
        run(tmp_path, loss_fn=broken)


def test_parameters_move_at_the_rate_of_their_depth(tmp_path):
    """Adam's first step is the learning rate itself, whatever the gradient."""
    recipe = with_values(
        Recipe(),
        {
            "train.epochs": 1,
            "train.batch_size": 48,
            "train.lr": 1e-3,
            "schedule.warmup": 0.0,
            "train.layer_decay": 0.6,
            "optimizer.weight_decay": 0.0,
        },
    )
    model = build(tiny_spec(), seed=0)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    result = train(model, tiny_dataset(), recipe, PREPROCESS, folder=tmp_path)
    parts = list(dict.fromkeys(part_of(name) for name in start))
    assert (parts[0], parts[-2:]) == ("stem", ["head", "classifier"])
    for below, part in enumerate(reversed(parts)):
        steps = [(p - start[name]).abs().max().item() for name, p in model.named_parameters() if part_of(name) == part]
        assert max(steps) == pytest.approx(1e-3 * 0.6**below, rel=2e-2)
    assert result.history[0]["learning_rate"] == pytest.approx(1e-3)


def stepper(recipe, model=None, *, loss_fn=None, fused=False):
    """Return a network, initialised from a seed if none is given, and its stepper."""
    device = torch.device("cpu")
    model = model or build(tiny_spec(), dropout=recipe.model.dropout, drop_path=recipe.model.drop_path, seed=0)
    state = make_state(model, with_values(recipe, {"train.fused": fused}), device)
    return Stepper(state, recipe, PREPROCESS, loss_fn or cross_entropy(), device)


def make_images(count):
    split = tiny_dataset().train
    return np.stack(split.sources[:count]), split.labels[:count]


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


QUIET = with_values(Recipe(), {"model.dropout": 0.0, "train.clip_norm": 0.0})


@pytest.mark.parametrize("count, micro, parts", [(16, 4, 4), (16, 16, 1), (16, 0, 1), (7, 3, 3), (9, 8, 2), (3, 2, 1)])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(count, micro, parts):
    """Compare with autograd on the whole batch, with BatchNorm statistics frozen."""
    frozen = with_values(QUIET, {"train.frozen_norms": True, "train.micro_batch": micro})
    images, labels = make_images(count)
    model = build_trained(tiny_spec(), resolution=16)
    plain = copy.deepcopy(model).eval()
    functional.cross_entropy(
        plain(to_input(images, PREPROCESS, torch.device("cpu"))), torch.from_numpy(labels)
    ).backward()
    sizes = []

    def loss_fn(network, batch):
        sizes.append(len(batch.labels))
        return cross_entropy()(network, batch)

    stepped = stepper(frozen, model, loss_fn=loss_fn).step(images, labels, frozen, number=0, rate=1e-3)
    expected = [3, 4] if (count, micro) == (9, 8) else None
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    if count > 3:
        assert len(sizes) == (parts if expected is None else 2)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, gradients(plain)[name], rtol=1e-4, atol=1e-6)
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in plain.parameters()]))
    assert stepped.gradient_norm == pytest.approx(norm.item(), rel=1e-4)


def test_norms_take_statistics_of_each_micro_batch_and_never_of_a_single_image():
    recipe = with_values(QUIET, {"train.micro_batch": 2})
    model = build(tiny_spec(), seed=0)
    plain = copy.deepcopy(model)
    images, labels = make_images(7)
    stepper(recipe, model).step(images, labels, recipe, number=0, rate=0.0)
    x = to_input(images, PREPROCESS, torch.device("cpu"))
    with torch.no_grad():
        for part in (x[:2], x[2:4], x[4:]):
            plain.train()(part)
    assert model.stem.norm.num_batches_tracked == 3
    for name, tensor in plain.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(model.state_dict()[name], tensor)


def test_the_parts_of_a_mixed_batch_keep_their_images_together():
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Deep:
        weight: torch.Tensor
        name: str

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Deeper:
        images: torch.Tensor
        labels: torch.Tensor
        mixed: Deep

    rows = torch.arange(5)
    batch = Deeper(images=rows, labels=rows, mixed=Deep(weight=rows, name="mixup"))
    parts = num_parts(ALONE.share(5), with_values(QUIET, {"train.micro_batch": 2}))
    found = list(split_batch(batch, parts))
    assert [part.images.tolist() for part in found] == [[0, 1], [2, 3, 4]]
    assert all(part.mixed.weight.equal(part.images) and part.mixed.name == "mixup" for part in found)


@pytest.mark.parametrize("clip", [0.0, 1e-2, 1e6])
def test_gradients_are_clipped_as_torch_clips_them(clip):
    recipe = with_values(QUIET, {"train.clip_norm": clip})
    images, labels = make_images(8)
    clipped, plain = build(tiny_spec(), seed=0), build(tiny_spec(), seed=0)
    stepper(recipe, clipped).step(images, labels, recipe, number=0, rate=0.0)
    stepper(QUIET, plain).step(images, labels, QUIET, number=0, rate=0.0)
    if clip:
        torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
    assert all(torch.equal(g, gradients(plain)[name]) for name, g in gradients(clipped).items())


@pytest.mark.parametrize(
    "asked, dtype", [("auto", None), ("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_a_cpu_computes_in_what_is_asked_for(asked, dtype):
    recipe = with_values(QUIET, {"train.precision": asked})
    seen = []

    def loss_fn(network, batch):
        seen.append(network(batch.images).dtype)
        return cross_entropy()(network, batch)

    model = build(tiny_spec(), seed=0)
    stepper(recipe, model, loss_fn=loss_fn).step(*make_images(8), recipe, number=0, rate=1e-3)
    assert seen == [dtype or torch.float32]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_float16_skips_a_step_that_overflows_and_takes_it_at_a_smaller_scale():
    recipe = with_values(QUIET, {"train.precision": "float16"})
    model = build(tiny_spec(), seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    one = stepper(recipe, model)
    one.state.scaler.load_state_dict(one.state.scaler.state_dict() | {"scale": 2.0**30})
    taken = []
    for number in range(40):
        stepped = one.step(*make_images(8), recipe, number=number, rate=1e-3)
        assert not stepped.culprit
        moved = any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
        taken.append(moved)
        assert moved == math.isfinite(stepped.gradient_norm)
        if moved:
            break
    assert 5 < len(taken) < 24
    assert one.state.scaler.get_scale() == 2.0 ** (31 - len(taken))


def test_float16_that_overflows_at_every_scale_ends_with_the_gradient(tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.training.step._MOST_SKIPPED", 5)

    def loss_fn(network, batch):
        return cross_entropy()(network, batch) + (network(batch.images) * 0).sum().sqrt()  # slope 1/0, times 0

    recipe = with_values(RECIPE, {"train.precision": "float16", "train.epochs": 20})
    with pytest.raises(
        EffnetError, match=r"norm became nan at step 5 .*float32 or bfloat16.*gradient of classifier\.bias"
    ):
        run(tmp_path, recipe=recipe, loss_fn=loss_fn)


@pytest.mark.elsewhere
def test_a_run_in_float16_goes_on_with_its_scale(tmp_path, monkeypatch):
    recipe = with_values(RECIPE, {"train.precision": "float16"})
    grown = make_scaler(torch.float16, torch.device("cpu"))
    grown.set_growth_interval(2)  # the scale changes within the run
    scaler_state = grown.state_dict()

    def make(dtype, device):
        scaler = make_scaler(dtype, device)
        scaler.load_state_dict(scaler_state)
        return scaler

    monkeypatch.setattr("effnet.training.state.state.make_scaler", make)
    whole = weights(run_saving(tmp_path / "whole", recipe=recipe))

    def stop(event):
        if isinstance(event, Step) and event.step == 6:
            raise Stop

    with pytest.raises(Stop):
        run_saving(tmp_path / "parts", recipe=recipe, listener=stop)
    resumed = weights(run_saving(tmp_path / "parts", recipe=recipe))
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
    scales = []
    for name in ("whole", "parts"):
        with safetensors.safe_open(tmp_path / name / CHECKPOINT, framework="pt") as file:
            scales.append(json.loads(file.metadata()["scaler"]))
    assert scales[0] == scales[1]
    assert scales[0]["scale"] != scaler_state["scale"]


def poison(name, value):
    """Return a network with one number of a layer's weight replaced."""
    model = build(tiny_spec(), seed=0)
    with torch.no_grad():
        model.get_submodule(name).weight.flatten()[0] = value
    return model


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "layer, value, said",
    [
        ("stages.1.0.depthwise.conv", float("nan"), "the weight of layer stages.1.0.depthwise.conv had stopped being"),
        ("head.conv", 1e38, "the output of layer head.conv is the first"),
        ("classifier", float("inf"), "the weight of layer classifier had stopped being finite before"),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named_and_the_weights_are_kept(layer, value, said, fused):
    model = poison(layer, value)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    one = stepper(RECIPE, model, fused=fused)
    stepped = one.step(*make_images(8), RECIPE, number=0, rate=1e-3)
    assert said in stepped.culprit
    assert not math.isfinite(stepped.loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    def loss_fn(network, batch):
        return (
            cross_entropy()(network, batch) + (network.head(network.stage_outputs(batch.images)[-1]) * 0).sum().sqrt()
        )

    with pytest.raises(
        EffnetError, match=r"norm became nan at step 1 of.*the gradient of head\.norm\.bias is the first"
    ):
        run(tmp_path, loss_fn=loss_fn)


def test_images_that_are_not_finite_are_named():
    recipe = with_values(QUIET, {})
    bad = stepper(recipe)
    bad.preprocess = dataclasses.replace(PREPROCESS, std=(1e-4,))
    object.__setattr__(bad.preprocess, "std", (1e-45,))  # no image file can contain that
    stepped = bad.step(*make_images(8), recipe, number=0, rate=1e-3)
    assert stepped.culprit == "the input of layer stem.conv is not finite: check the images"


def test_a_run_that_diverges_leaves_its_state_and_its_last_checkpoint(tmp_path, monkeypatch):
    calls = []

    def loss_fn(network, batch):
        calls.append(batch.labels)
        loss = cross_entropy(0.1)(network, batch)
        return loss * float("inf") if len(calls) >= 5 else loss

    with pytest.raises(
        EffnetError, match=r"the loss became inf at step 5 of epoch 2, at learning rate .*train\.lr is 0.005"
    ):
        run_saving(tmp_path, loss_fn=loss_fn)
    with safetensors.safe_open(tmp_path / DIVERGED, framework="pt") as file:
        metadata = file.metadata()
        assert torch.equal(file.get_tensor("batch.labels"), calls[4])
        assert file.get_tensor("batch.images").dtype == torch.uint8
        diverged = {name: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}  # noqa: SIM118
    assert json.loads(metadata["position"])["step"] == 4
    assert metadata["culprit"] == "every layer's output is finite, but the loss is not"
    kept = safetensors.torch.load_file(tmp_path / CHECKPOINT)
    assert all(torch.equal(kept[name], t) for name, t in diverged.items() if "norm" not in name)
    calls.clear()
    monkeypatch.undo()
    events = []
    run_saving(tmp_path, listener=events.append)
    assert next(event.step for event in events if isinstance(event, Step)) == 5


def test_a_loss_that_explodes_and_stays_there_ends_the_run(tmp_path, monkeypatch):
    """Train with a learning rate a thousand times too high, without gradient clipping."""
    monkeypatch.setattr("effnet.training.state.position._HIGH_STEPS", 6)
    recipe = with_values(RECIPE, {"train.lr": 30.0, "train.clip_norm": 0.0, "train.epochs": 10})
    with pytest.raises(EffnetError, match=r"training diverges.*6 consecutive steps.*train\.lr is 30.*new folder"):
        run(tmp_path, recipe=recipe)


def test_a_high_loss_now_and_then_does_not_end_a_run():
    position = Position(first_loss=0.01)
    for number in range(1000):
        assert not position.watch(1e3 if number % 100 else 1.0, guessed=math.log(3))
    assert [position.watch(1e3, guessed=math.log(3)) for _ in range(150)][-1]


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path):
    found = ClassesValidated(loss=float("nan"), accuracy=0.3, confusion=None)
    with pytest.raises(EffnetError, match=r"validation loss became nan after epoch 1.*lower learning rate"):
        check_finite(found, position=Position(), recipe=RECIPE)
