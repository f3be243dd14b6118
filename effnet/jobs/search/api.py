"""The search of a network for the user's images and device."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from effnet.errors import BundleError
from effnet.jobs.fit.api import FitResult
from effnet.jobs.fit.job import job_of
from effnet.jobs.search.checks import check_search
from effnet.jobs.search.config import SearchConfig
from effnet.jobs.search.on_ray import start_on_nodes
from effnet.jobs.search.plan import DEFAULT_MINUTES
from effnet.jobs.search.run import work
from effnet.report.model import load_report
from effnet.report.search.searched import Searched
from effnet.system.options import takes


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult(FitResult):
    """A finished search: the bundle's folder, and its report, of which `searched` is the search.

    `host` is the machine whose worker made the bundle.
    """

    host: str = ""

    @property
    def searched(self) -> Searched:
        """Every network that was trained, the final, and whether the search found something."""
        assert self.report.searched is not None
        return self.report.searched


@takes(SearchConfig)
def search(config: SearchConfig) -> SearchResult:
    """Search a network for `data` within the budget, train it, and verify it in the device's runtime.

    Data, budget, runtime and most options are those of `fit`. `algorithm` proposes networks in generations; every one
    is scaled to 95 to 100 % of the budget, trained for a few epochs, and stopped if it falls behind. The three best are
    trained again with two seeds each, beside the best uniformly scaled network; the winner is trained to its end, and
    only then are the test images opened. All of it takes `minutes` (60 by default); with
    `epochs` the last training has as many, however long they take.

    Workers with one `storage`, a file or the URL of a PostgreSQL database, share one search: the same command on each
    machine, with an `out` of its own; one of them makes the bundle. `ray` starts them on the nodes of a Ray cluster.
    Any number of workers, interrupted at any moment, gives the same networks with the same scores.

    Raises BudgetError if no network meets the budget, DataError if the images are too few to rank networks, and
    InputError for anything else that the caller can correct.
    """
    if config.minutes is None:
        config = dataclasses.replace(config, minutes=DEFAULT_MINUTES)
    job = job_of(config)
    if config.ray is not None:
        check_search(job)
        start_on_nodes(job)
    found = work(job)  # after the nodes' workers, which leave it nothing to do unless they failed
    try:
        report = load_report(found.folder)
    except BundleError as error:
        raise BundleError(f"the bundle is in {found.folder} of {found.host}, which cannot be read here") from error
    return SearchResult(folder=Path(found.folder), report=report, host=found.host)
