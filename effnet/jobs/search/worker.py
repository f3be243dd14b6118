"""One worker of a running search: what all its stages share."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.reading import Source
from effnet.jobs.search.checks import config_of
from effnet.jobs.search.plan import Plan
from effnet.measurement.speed.timing import Timing
from effnet.nas.generations import Generations
from effnet.nas.objective import Objective
from effnet.nas.spaces.macro import MacroSpace
from effnet.nas.spaces.space import Genome
from effnet.nas.study import Study, Unit
from effnet.planner.space import Candidate

OBJECTIVE = Objective()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker: the job and its data, the shared study and plan, and the space with its `references`.

    `references` are the scaled networks that `fit` would choose from; no algorithm sees the genomes that they have
    here. `scaled` are all uniformly scaled networks, `rescaled` those as wide as measurements allow; `measure` measures
    one. `slowness` is that of a network's training, relative to the usual. `extent` says how far the search goes, and
    its key seeds it; `objective` scores a network.
    """

    job: Job
    source: Source
    study: Study
    plan: Plan
    space: MacroSpace
    references: dict[Genome, ArchSpec]
    scaled: Collection[Genome]
    slowness: Callable[[ArchSpec], float]
    measure: Callable[[Candidate], Timing]
    extent: Generations
    objective: Objective = OBJECTIVE
    rescaled: Mapping[Genome, ArchSpec] = field(default_factory=dict)

    def spec(self, genome: Genome) -> ArchSpec:
        """Return the network of a genome or of a reference, as wide as measurements allow if that is known."""
        found = self.rescaled.get(genome) or self.references.get(genome) or self.space.network(genome)
        assert found is not None
        return found

    def figures(self, spec: ArchSpec) -> dict[str, float]:
        """Return a network's counts and its limited figures, predicted if they are not analytic."""
        found = cost(spec)
        return {"macs": float(found.macs), "params": float(found.params), **self.space.figures(spec)}

    def views(self, spec: ArchSpec, images: int, epochs: int) -> dict[str, int]:
        """Return the images and epochs of a network's training, for the time of these numbers of a usual one.

        The published search compares trainings of equal images.
        """
        if config_of(self.job).strict_paper:
            return {"images": images, "epochs": epochs}
        wanted, train = images / self.slowness(spec), len(self.source.dataset.train)
        return {"images": min(train, round(wanted)), "epochs": max(epochs, round(epochs * wanted / train))}

    def late(self, share: float) -> bool:
        """Return whether less than this share of the minutes is left."""
        return self.job.deadline.left() < share * self.job.deadline.seconds

    def after(self, stage: int, slot: int = 0) -> Unit:
        """Return a unit of a stage after the search: 0 chooses the finalists, 1 trains them, 2 makes the bundle."""
        return Unit(self.extent.number + stage, slot)
