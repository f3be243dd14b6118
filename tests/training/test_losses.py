"""Losses against timm's, their formulas, and a teacher of another resolution and normalisation."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from benchmarks.peers import import_timm
from effnet import get_spec
from effnet.arch.scale import scale
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_state, save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, InputError
from effnet.nn.network import build
from effnet.training.distill import as_input, distillation, make_loss
from effnet.training.losses import Batch, Mixed, Terms, binary_cross_entropy, cross_entropy, focal_loss, soft_targets
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Loss, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
NAMES = ("cat", "dog", "owl", "yak")
STUDENT = Preprocess(resolution=16, crop=1.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
TEACHER = Preprocess(resolution=24, crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


def batch_of(size=6, classes=4, *, mixed=False):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % classes
    return Batch(
        images=torch.randn(size, 3, 16, 16, generator=generator),
        labels=labels,
        mixed=Mixed(partner=labels.roll(-1), weight=torch.rand(size, generator=generator)) if mixed else None,
    )


class Linear(nn.Module):
    """Return a student of any resolution."""

    def __init__(self, classes=4):
        super().__init__()
        self.classifier = nn.Linear(3, classes)
        nn.init.normal_(self.classifier.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, x):
        return self.classifier(x.mean((2, 3)))


@pytest.mark.elsewhere
@NEEDS_TIMM
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms_on_labels_and_on_soft_targets(smoothing):
    import_timm()
    from timm.loss import BinaryCrossEntropy

    model, batch = Linear(), batch_of()
    theirs = BinaryCrossEntropy(smoothing=smoothing)(model(batch.images), batch.labels)
    torch.testing.assert_close(binary_cross_entropy(smoothing)(model, batch), theirs)

    # The labels after timm's own mixup, with one weight for the whole batch.
    from timm.data.mixup import mixup_target

    weight = 0.3
    mixed = dataclasses.replace(batch, mixed=Mixed(partner=batch.labels.flip(0), weight=torch.full((6,), weight)))
    targets = mixup_target(batch.labels, 4, lam=weight, smoothing=smoothing)
    theirs = BinaryCrossEntropy()(model(batch.images), targets)
    torch.testing.assert_close(binary_cross_entropy(smoothing)(model, mixed), theirs)


@pytest.mark.elsewhere
@NEEDS_TIMM
def test_cross_entropy_is_timms_on_labels_and_on_mixed_ones():
    import_timm()
    from timm.data.mixup import mixup_target
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    model, batch = Linear(), batch_of()
    theirs = LabelSmoothingCrossEntropy(0.1)(model(batch.images), batch.labels)
    torch.testing.assert_close(cross_entropy(0.1)(model, batch), theirs)
    mixed = dataclasses.replace(batch, mixed=Mixed(partner=batch.labels.flip(0), weight=torch.full((6,), 0.3)))
    theirs = SoftTargetCrossEntropy()(model(batch.images), mixup_target(batch.labels, 4, lam=0.3, smoothing=0.1))
    torch.testing.assert_close(cross_entropy(0.1)(model, mixed), theirs)


WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_classes_are_torchs_summed_and_divided_by_the_images(smoothing):
    model, batch = Linear(), batch_of()
    theirs = nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=smoothing, reduction="sum")
    expected = theirs(model(batch.images), batch.labels) / len(batch.labels)
    torch.testing.assert_close(cross_entropy(smoothing, Terms(weights=WEIGHTS))(model, batch), expected)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_its_formula(gamma, weights, mixed):
    model, batch = Linear(), batch_of(mixed=mixed)
    found = cross_entropy(0.1, Terms(gamma=gamma, weights=weights))(model, batch)
    logits = model(batch.images).detach().double().numpy()
    targets = soft_targets(batch, num_classes=4, smoothing=0.1).double().numpy()
    factors = np.ones(4) if weights is None else weights.numpy()
    total = 0.0
    for row, shown in zip(logits, targets, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        total -= sum(factors[c] * shown[c] * (1 - p[c]) ** gamma * np.log(p[c]) for c in range(4))
    assert found.item() == pytest.approx(total / len(logits), rel=1e-5)


@given(rows=st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_focal_loss_of_gamma_0_is_cross_entropy_and_its_slope_is_finite_at_any_gamma(rows):
    logits = torch.tensor(rows, requires_grad=True)
    targets = functional.one_hot(torch.arange(len(rows)) % 3, 3).float()
    torch.testing.assert_close(focal_loss(logits, targets, gamma=0.0), functional.cross_entropy(logits, targets))
    for gamma in (0.1, 2.0):
        (slope,) = torch.autograd.grad(focal_loss(logits, targets, gamma=gamma), logits)
        assert torch.isfinite(slope).all()


COUNTS = np.array([34, 10, 2, 5])
LABELS = np.repeat(np.arange(4), COUNTS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_adjusted_loss_is_menons_equation_10_of_the_frequencies_that_labels_show(smoothing):
    model, batch = Linear(), batch_of()
    values = {"balance.method": "adjust", "balance.strength": 0.5, "loss.label_smoothing": smoothing}
    recipe = with_values(Recipe(), values)
    loss = make_loss(recipe, preprocess=STUDENT, class_names=NAMES, labels=LABELS)
    shown = np.full((len(LABELS), 4), smoothing / 4)
    shown[np.arange(len(LABELS)), LABELS] += 1 - smoothing
    weighed = model(batch.images).detach().exp().numpy() * shown.mean(0) ** 0.5
    logs = np.log(weighed / weighed.sum(1, keepdims=True))
    targets = soft_targets(batch, num_classes=4, smoothing=smoothing).numpy()
    assert loss(model, batch).item() == pytest.approx(-(targets * logs).sum(1).mean(), rel=1e-5)


def test_a_network_that_sees_nothing_names_all_classes_alike_once_adjusted():
    """The best constant output, the minimum of the loss, has equal logits: also with smoothed labels."""
    batch = Batch(images=torch.zeros(len(LABELS), 3, 4, 4), labels=torch.from_numpy(LABELS))
    recipe = with_values(Recipe(), {"balance.method": "adjust", "loss.label_smoothing": 0.1})
    loss, bias = make_loss(recipe, preprocess=STUDENT, class_names=NAMES, labels=LABELS), torch.zeros(4)
    bias.requires_grad_()
    (slope,) = torch.autograd.grad(loss(lambda images: bias.expand(len(images), 4), batch), bias)
    torch.testing.assert_close(slope, torch.zeros(4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["adjust", "weight"])
def test_a_network_that_tells_all_images_apart_names_their_classes_however_rare_others_are(method):
    """Regression: smoothing gives a rare class a share of every image's target, and `weight` multiplied that too."""
    labels = np.repeat([0, 1], [1000, 10])
    recipe = with_values(Recipe(), {"balance.method": method})
    assert recipe.loss.label_smoothing == 0.1
    loss = make_loss(recipe, preprocess=STUDENT, class_names=("cat", "owl"), labels=labels)
    table = torch.zeros(2, 2, requires_grad=True)  # the logits of every image of a class
    batch = Batch(images=torch.zeros(len(labels), 1), labels=torch.from_numpy(labels))
    optimizer = torch.optim.LBFGS([table], max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        found = loss(lambda images: table[batch.labels], batch)
        found.backward()
        return found

    optimizer.step(step)
    assert table.argmax(1).tolist() == [0, 1]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return a bundle whose preprocessing differs from the student's."""
    folder = tmp_path_factory.mktemp("teacher") / "bundle"
    spec = scale(get_spec("b0", num_classes=4), phi=-20, resolution=24)
    config = ModelConfig(arch=spec, preprocess=TEACHER, class_names=NAMES, versions={}, split_seed=0)
    save_bundle(folder, config, state_arrays(build(spec, seed=5)))
    return folder


def recipe_of(**loss):
    return with_values(Recipe(), {f"loss.{name}": value for name, value in loss.items()})


def make(recipe, *, names=NAMES, preprocess=STUDENT):
    return make_loss(recipe, preprocess=preprocess, class_names=names, device=torch.device("cpu"))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_distillation_is_its_formula(teacher, mixed, name):
    from effnet.bundle.weights import load_module

    model, batch, heat, share = Linear(), batch_of(mixed=mixed), 3.0, 0.7
    loss = make(recipe_of(name=name, teacher=str(teacher), temperature=heat, teacher_weight=share))
    # By a second way: pixels in 0..1, resized, normalised again; then Hinton's cross-entropy less its entropy.
    pixels = batch.images * torch.tensor(STUDENT.std)[:, None, None] + torch.tensor(STUDENT.mean)[:, None, None]
    pixels = functional.interpolate(pixels, size=(24, 24), mode="bilinear", antialias=True)
    with torch.no_grad():
        answers = load_module(teacher)((pixels - 0.5) / 0.5)
    p, q = (answers / heat).softmax(1), (model(batch.images) / heat).softmax(1)
    soft = heat**2 * (p * (p.log() - q.log())).sum(1).mean()
    hard = (cross_entropy if name == "cross_entropy" else binary_cross_entropy)(0.1)(model, batch)
    torch.testing.assert_close(loss(model, batch), (1 - share) * hard + share * soft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("balanced", [0.0, 1.0])
def test_a_teachers_class_frequencies_are_taken_out_once(teacher, balanced, tmp_path):
    """The logits of a balanced teacher are used unchanged; those of another are adjusted like the student's."""
    from effnet.bundle.weights import load_module

    config = dataclasses.replace(read_config(teacher), balanced=balanced, preprocess=STUDENT)
    save_bundle(tmp_path / "teacher", config, load_state(teacher))
    settings = {"balance.method": "sample", "loss.teacher": str(tmp_path / "teacher"), "loss.teacher_weight": 1.0}
    loss = make_loss(with_values(Recipe(), settings), preprocess=STUDENT, class_names=NAMES, labels=LABELS)
    model, batch = Linear(), batch_of()
    with torch.no_grad():
        answers = load_module(tmp_path / "teacher")(batch.images).softmax(1)
    if not balanced:
        answers = answers / torch.tensor(COUNTS)
    p, q = answers / answers.sum(1, keepdim=True), model(batch.images).softmax(1)
    torch.testing.assert_close(loss(model, batch), (p * (p / q).log()).sum(1).mean(), rtol=1e-4, atol=1e-5)


def test_the_factor_keeps_gradients_of_the_same_size_at_every_temperature():
    """Hinton et al. 2015, section 2.1: at high temperatures the gradient tends to (z - v) / N for centred logits."""
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    answers = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))

    class Fixed(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, images):
            return self.value

    plan = Loss(teacher="unread", teacher_weight=1.0, temperature=1000.0)
    loss = distillation(Fixed(answers), plan, preprocess=STUDENT, teacher_preprocess=STUDENT)
    loss(Fixed(logits), Batch(images=torch.zeros(1, 3, 16, 16), labels=torch.zeros(1, dtype=torch.int64))).backward()
    expected = ((logits - logits.mean()) - (answers - answers.mean())) / 5
    torch.testing.assert_close(logits.grad, expected, rtol=1e-2, atol=1e-3)


def test_a_teacher_neither_learns_nor_changes_its_statistics(teacher):
    from effnet.bundle.weights import load_module

    network = load_module(teacher).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plan = Loss(teacher=str(teacher), teacher_weight=0.5)
    loss = distillation(network, plan, preprocess=STUDENT, teacher_preprocess=TEACHER)
    model = Linear()
    loss(model, batch_of()).backward()
    assert model.classifier.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_learning_from_a_teacher_alone_makes_a_student_agree_with_it(teacher):
    from effnet.bundle.weights import load_module

    student = load_module(teacher)
    with torch.no_grad():
        student.classifier.weight.zero_()
        student.classifier.bias.zero_()
    loss = make(recipe_of(teacher=str(teacher), teacher_weight=1.0), preprocess=TEACHER)
    images = torch.randn(8, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=images, labels=torch.arange(8) % 4)
    before = loss(student, batch).item()
    optimizer = torch.optim.LBFGS(student.classifier.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        value = loss(student, batch)
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        same = student(batch.images).softmax(1) - load_module(teacher)(batch.images).softmax(1)
    assert loss(student, batch).item() < min(1e-3, 0.05 * before)
    assert same.abs().max() < 0.02


def test_images_reach_a_teacher_of_the_same_preprocessing_untouched():
    images = batch_of().images
    assert as_input(images, STUDENT, STUDENT) is images
    smaller = as_input(images, STUDENT, dataclasses.replace(STUDENT, resolution=8))
    assert smaller.shape == (6, 3, 8, 8)
    np.testing.assert_allclose(smaller.mean().item(), images.mean().item(), atol=0.02)


@pytest.mark.parametrize("names", [("cat", "dog", "owl"), ("dog", "cat", "owl", "yak")])
def test_a_teacher_of_other_classes_is_refused(teacher, names):
    with pytest.raises(InputError, match=r"classes of the teacher must be those of the data set.*'cat'.*'owl'"):
        make(recipe_of(teacher=str(teacher)), names=names)


def test_a_teacher_of_other_channels_is_refused(teacher):
    grey = Preprocess(resolution=16, mean=(0.5,), std=(0.5,))
    with pytest.raises(InputError, match="takes 3, the student 1"):
        make(recipe_of(teacher=str(teacher)), preprocess=grey)


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="nobody"):
        make(recipe_of(teacher=str(tmp_path / "nobody")))
