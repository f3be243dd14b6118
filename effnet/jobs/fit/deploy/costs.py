"""The costs of wrong answers in the config of a fitted model."""

from typing import Any

from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.tasks.costs import read_costs, with_costs


def costed(dataset: Dataset, text: str) -> dict[str, Any]:
    """Return the fields `costs` and `specs` of the config of a model of these data, with the costs of `fit.cost`.

    Raises InputError if the data have no such class or tag.
    """
    if dataset.specs:
        return {"specs": with_costs(dataset.specs, text)}
    if not dataset.label_kind.classes:
        if text:
            raise InputError("cost must be left out: only classes and tags have costs")
        return {}
    return {"costs": read_costs(text, dataset.class_names)}
