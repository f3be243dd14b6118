"""A lower precision of a detector is judged by the figure that it loses, on the file itself."""

import math

import pytest
from decoders import NETWORKS, arrays, config_of, made, small

from effnet.errors import BudgetError, InputError
from effnet.measurement import acceptance
from effnet.measurement.acceptance import Acceptance, FigureDrop
from effnet.runtimes.registry import find_export
from effnet.runtimes.write import check_maps, check_task
from effnet.tasks.detection import TASK
from effnet.tasks.task import Figure


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [(0.5, 0.491, False), (0.5, 0.489, True), (0.5, 0.6, False), (math.nan, 0.5, True), (0.5, math.nan, True)],
)
def test_a_file_may_lose_a_point_and_an_unknown_figure_is_refused(before, after, refused):
    found = FigureDrop(images=9, figure=TASK.figure, before=before, after=after)
    assert bool(found.refusal(TASK.figure_drop)) is refused


def test_of_an_error_more_is_worse():
    error = Figure(key="error", title="error", share=False, less_is_better=True)
    assert FigureDrop(images=1, figure=error, before=2.0, after=3.0).drop == 1.0
    assert FigureDrop(images=1, figure=error, before=3.0, after=2.0).refusal(0) == ""


class Scored:
    """Scores by the name of the predictor's format, in place of AP on annotated images."""

    def __init__(self, **figures):
        self.figures = {"onnx": 0.5} | figures

    def evaluate_split(self, predictor, split, **_):
        return type("Score", (), {"figure": self.figures[predictor.format.name]})


def test_the_fp32_file_is_the_measure(tmp_path, monkeypatch):
    network = made("wide")[0]
    config = config_of(network.spec)
    scored = Scored()
    monkeypatch.setattr(acceptance, "scoring_of", lambda task: scored)
    judge = Acceptance(config=config, state=arrays(network), split=[0] * 9, max_drop=0.005, place=tmp_path)
    lower = type("Predictor", (), {"format": find_export("onnx-int8")})
    scored.figures = {"onnx": 0.5, "onnx-int8": 0.495}
    assert judge.judge(lower).drop == pytest.approx(0.005)
    scored.figures = {"onnx-int8": 0.45}
    with pytest.raises(BudgetError, match=r"onnx-int8 has AP 45.00% on 9 images, and fp32 has 50.00%"):
        judge.judge(lower)
    assert list(tmp_path.iterdir()) == []


def test_what_a_detector_has_and_has_not():
    config = config_of(small(NETWORKS["wide"]))
    for name in ("onnx-int8", "litert-int8", "coreml"):
        check_task(config, find_export(name))
    with pytest.raises(InputError, match="embeddings are those of classifiers; this bundle's task is detection"):
        check_task(config, find_export("onnx-features"))
    with pytest.raises(InputError, match="activation maps are those of a classifier"):
        check_maps(config, find_export("onnx"))
