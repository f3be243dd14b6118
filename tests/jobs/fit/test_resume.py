"""A plan on disk is read back unchanged, and an error names it if it is damaged."""

import json

import pytest

from effnet.bundle.names import PLAN, RUN
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.jobs.fit.resume import Attempt, Plan, read_plan, write_plan
from effnet.planner.space import list_candidates
from effnet.training.recipe.schema import Recipe

HUGE = 10**400
FIRST, SECOND = list_candidates(num_classes=10, channels=3, short_side=32)[-2:]


@pytest.fixture
def plan():
    preprocess = Preprocess(resolution=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    attempts = [Attempt(candidate=number, recipe=Recipe(), preprocess=preprocess) for number in (0, 1)]
    failed = [{"name": "b0", "honoured": False, "failures": ["latency"], "seconds": 3.0}]
    return Plan(
        task="classification",
        options={"seed": 0}, fingerprint="0123abcd", candidates=[FIRST, SECOND], attempts=attempts, failed=failed,
        seconds=2.5, busy="The machine was busy",
    )  # fmt: skip


@pytest.fixture
def written(plan, tmp_path):
    """Return the folder of a plan, and a function that writes it with one value changed."""
    (tmp_path / RUN).mkdir()
    write_plan(plan, tmp_path)
    path = tmp_path / RUN / PLAN

    def change(place, value):
        data = json.loads(path.read_text())
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        path.write_text(json.dumps(data))

    return tmp_path, change


def test_a_plan_is_read_as_it_was_written(plan, written):
    found = read_plan(written[0])
    assert (found.busy, found.seconds, found.failed) == (plan.busy, plan.seconds, plan.failed)
    assert [c.to_dict() for c in found.candidates] == [c.to_dict() for c in plan.candidates]
    assert list(found.attempts) == list(plan.attempts)


def test_there_need_not_be_a_plan(tmp_path):
    assert read_plan(tmp_path) is None


@pytest.mark.parametrize(
    "place, value",
    [
        (("seconds",), HUGE),
        (("seconds",), float("nan")),
        (("seconds",), -1),
        (("options",), []),
        (("fingerprint",), HUGE),
        (("busy",), 7),
        (("failed",), [{"seconds": 1.0}] * 3),
        (("failed", 0, "seconds"), HUGE),
        (("failed", 0), None),
        (("attempts", 0, "candidate"), HUGE),
        (("attempts", 0, "candidate"), -1),
        (("attempts", 0, "candidate"), 2),
        (("attempts", 0, "strategy"), "hope"),
        (("attempts", 0, "recipe", "train", "epochs"), HUGE),
        (("attempts", 0, "recipe", "train", "epochs"), 1e308),
        (("attempts", 0, "recipe", "train", "lr"), HUGE),
        (("attempts", 0, "recipe", "train", "lr"), float("inf")),
        (("attempts", 0, "preprocess", "resolution"), HUGE),
        (("attempts", 0, "preprocess", "crop"), HUGE),
        (("candidates",), {}),
        (("candidates", 0), None),
        (("candidates", 0, "latency_ms"), HUGE),
        (("candidates", 0, "latency_ms"), "fast"),
        (("candidates", 0, "memory_mb"), float("nan")),
        (("candidates", 0, "worth"), None),
        (("candidates", 0, "phi"), "one"),
        (("candidates", 0, "status"), "perhaps"),
        (("candidates", 0, "precision"), HUGE),
        (("candidates", 0, "spec", "resolution"), HUGE),
        (("candidates", 0, "spec", "stages", 0, 0, "in_channels"), 1e308),
        (("candidates", 0, "spec"), []),
    ],
)
def test_a_value_that_no_plan_has_names_the_file_on_one_line(place, value, written):
    out, change = written
    change(place, value)
    with pytest.raises(InputError, match=r"run/plan\.json must be the plan of an earlier fit; ") as caught:
        read_plan(out)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["", "[" * 100_000, "null", "[]", '{"options": {}}', '{"seconds": NaN}', b"\xff\xfe{"])
def test_what_is_no_plan_is_named_as_well(text, written):
    out, _ = written
    (out / RUN / PLAN).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"run/plan\.json must be the plan of an earlier fit; ") as caught:
        read_plan(out)
    assert "\n" not in str(caught.value)
