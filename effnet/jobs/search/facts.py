"""The report's part on a search, from its history and its final."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from effnet.arch.cost import cost
from effnet.arch.describe import stage_rows
from effnet.arch.spec import ArchSpec
from effnet.nas.finals import Finalist, Verdict
from effnet.nas.history import Trained
from effnet.nas.spaces.space import Genome
from effnet.report.search.searched import FinalRow, Searched, SearchedRow, changes_of

SpecOf = Callable[[Genome], ArchSpec]
"""Returns the network of a genome."""


def search_facts(
    spec_of: SpecOf,
    history: Sequence[Trained],
    finalists: Sequence[Finalist],
    verdict: Verdict,
    *,
    algorithm: str,
    objective: str,
    seconds: float,
    scaled: Collection[Genome],
    measured: Mapping[Genome, Mapping[str, float]],
    searched_of: SpecOf,
    notes: Sequence[str] = (),
) -> Searched:
    """Return the report's part; `scaled` are the uniformly scaled networks, `measured` the finalists' figures.

    `spec_of` returns the networks of the final, `searched_of` those of the history.
    """
    base = spec_of(next((each.genome for each in finalists if each.scaled), verdict.winner))
    winner = spec_of(verdict.winner)
    before, after = tuple(stage_rows(base)), tuple(stage_rows(winner))
    return Searched(
        algorithm=algorithm,
        objective=objective,
        seconds=seconds,
        networks=tuple(
            _row(searched_of, trained, scaled=trained.genome in scaled) for trained in history if trained.share
        ),
        finals=tuple(
            FinalRow(
                **_names(spec_of, each.genome),
                scaled=each.scaled,
                winner=each.genome == verdict.winner,
                values=each.values,
                figures=_counts(spec_of(each.genome)) | dict(measured.get(each.genome, {})),
            )
            for each in finalists
        ),
        gain=verdict.gain,
        interval=verdict.interval,
        found=verdict.found,
        base_title=base.title,
        base_stages=before,
        changes=changes_of(before, after),
        notes=tuple(notes),
    )


def _row(spec_of: SpecOf, trained: Trained, *, scaled: bool) -> SearchedRow:
    return SearchedRow(
        **_names(spec_of, trained.genome),
        scaled=scaled,
        generation=trained.generation,
        seed=trained.seed,
        score=trained.score,
        value=trained.accuracy,
        nll=trained.nll or 0.0,
        share=trained.share,
        rungs=trained.rungs,
        figures=dict(trained.figures or {}),
        predicted=trained.predicted,
    )


def _names(spec_of: SpecOf, genome: Genome) -> dict[str, Any]:
    spec = spec_of(genome)
    return {"name": spec.name, "title": spec.title}


def _counts(spec: ArchSpec) -> dict[str, float]:
    found = cost(spec)
    return {"macs": float(found.macs), "params": float(found.params)}
