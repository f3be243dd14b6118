"""A task as a contributor writes one: the mean brightness of an image, a number from 0 to 1.

One module is record, learning, scoring and reporting; torch is imported only by what trains.
"""

from dataclasses import asdict, dataclass

import numpy as np

from effnet.data.labels import LabelKind
from effnet.errors import BundleError
from effnet.measurement.answers import predict_split
from effnet.measurement.evaluate import ScoreTable
from effnet.report.section import Extension, Section
from effnet.tasks.task import Figure, Output, Task

NAME = "mean_brightness"


def read(labels, names):
    return tuple(names or (NAME,)), [[repr(float(label)) for label in some] for some in labels]


def name(parts, order, strict):
    return tuple(order), []


def to_targets(texts, names):
    return np.array([float(text) for text in texts], np.float32)


def to_text(target, names):
    return f"{target:.3f}"


def strata(texts):
    return [""] * len(texts)  # all images are alike


def check_rows(rows, path):
    if not np.isfinite(rows).all():
        raise BundleError(f"{path} must return finite brightness; `effnet export` writes it again")


def answer(row, names, *, top, threshold):
    return float(row[0])


OUTPUT = Output(name=NAME, activation="none", meaning="0 (black) to 1 (white)", titled="a light meter")
FIGURE = Figure(key="mean_error", title="mean error", share=False, less_is_better=True)


@dataclass(frozen=True)
class Validated:
    loss: float
    error: float

    @property
    def figures(self):
        return {"val_mean_error": self.error}

    @property
    def words(self):
        return FIGURE.in_words(self.error)

    def score(self, recipe):
        return FIGURE.better(self.error), -self.loss

    def images(self, names):
        return {}


def check(model, dataset, recipe):
    return []


def loss_of(dataset, recipe, *, preprocess, device):
    return lambda model, batch: (model(batch.images)[:, 0] - batch.labels).square().mean()


def guessed_loss(dataset):
    return float(dataset.train.labels.var())


def validate(model, batches, preprocess, device, ranks):
    import torch

    from effnet.training.device import to_input

    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for images, labels in batches:
            off = model(to_input(images, preprocess, device))[:, 0].cpu().double() - torch.from_numpy(labels)
            sums += torch.stack([off.square().sum(), off.abs().sum(), torch.tensor(float(len(off)))])
    ranks.meet()
    squared, absolute, count = ranks.total(sums).tolist()
    return Validated(loss=squared / count, error=absolute / count)


@dataclass(frozen=True)
class Score:
    images: int
    mean_error: float
    guessing: float

    @property
    def figure(self):
        return self.mean_error

    @property
    def headline(self):
        return {"mean_error": self.mean_error}

    @property
    def mistakes(self):
        return ()

    def to_dict(self):
        return asdict(self)


SCORE = Score


def evaluate_split(predictor, split, *, unknown_from, leaked, progress):
    rows, indices = predict_split(predictor, split, progress=progress)
    truth = split.labels[indices]
    return Score(
        images=len(rows),
        mean_error=float(np.abs(rows[:, 0] - truth).mean()),
        guessing=float(np.abs(truth - np.median(truth)).mean()),
    )


def lines(score):
    return [f"mean error {score.mean_error:.3f} on {score.images} images"]


def table(score):
    return ScoreTable(columns=("error",), left=(), rows=[(f"{score.mean_error:.3f}",)])


def warnings_about(score, dataset, *, balanced):
    return [] if score.mean_error < score.guessing else ["It is no better than the median of the test images."]


PAGE = {
    "toy.html.j2": """{% extends "report.html.j2" %}
{% block test %}
{{ super() }}
<p>That is {{ share | percent }} of the error of the median.</p>
{% endblock %}
"""
}


def section(report):
    test = report.test
    error = f"{test.mean_error:.3f}"
    return Section(
        sentence=f"is off by {error} on average on",
        title="Mean error",
        value=error,
        lines=(f"The median of the {test.images} test images would be off by {test.guessing:.3f}.",),
        limit="It says nothing about colours.",
        code="print(float(outputs[0]))",
        tag="image-feature-extraction",
        metrics=("mae",),
        page=Extension(template=PAGE, values=lambda images: {"share": test.mean_error / test.guessing}),
    )


TASK = Task(
    name=NAME,
    title="mean brightness",
    labels=LabelKind(task=NAME, read=read, name=name, to_targets=to_targets, to_text=to_text, strata=strata),
    output=OUTPUT,
    figure=FIGURE,
    check=check_rows,
    answer=answer,
    learning=__name__,
    scoring=__name__,
    reporting=__name__,
)
