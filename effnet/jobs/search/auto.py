"""A fit that searches its network where that can pay."""

import dataclasses
from pathlib import Path

from effnet.bundle.names import RUN, SEARCH
from effnet.errors import DataError, InputError
from effnet.jobs.fit.api import FitResult
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.resume import read_plan
from effnet.jobs.search.api import search
from effnet.jobs.search.config import SearchConfig
from effnet.planner.events import Said

# A search below this many minutes trains too few networks to find anything.
_LEAST_MINUTES = 30.0
_OWN = (
    "strategy", "head_features", "trials", "search", "powers", "unlabelled", "unlabelled_method", "unlabelled_rounds",
)  # fmt: skip


def fit_by_search(config: FitConfig) -> FitResult | None:
    """Return the result of a search with the options of a fit; None, after saying why, if a plain fit is better."""
    job = job_of(config)
    reason = _why_not(config)
    if not reason and config.resume and _is_plain(job.out):
        return None
    if not reason:
        shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _OWN}
        # With less than the worthwhile epochs for each network of its final, a search from scratch ended below a fit.
        policy = dataclasses.replace(job.procedure.search, least_worth=1.0)
        try:
            return search(**shared | {"procedure": dataclasses.replace(job.procedure, search=policy)})
        except (DataError, InputError) as error:
            if not str(error).startswith("a search "):
                raise
            reason = str(error).partition(". ")[0]  # the advice that follows is for effnet search
    config.listener(Said(text=f"Fitting without a search: {reason}"))
    return None


def _is_plain(out: Path) -> bool:
    """Return whether the fit to resume in `out` is one that was begun without a search."""
    plan = read_plan(out)
    return plan is not None and "algorithm" not in plan.options and not (out / RUN / SEARCH).is_file()


def _why_not(config: FitConfig) -> str:
    """Return why a search cannot pay with these options, as far as they tell; empty if it may."""
    known = {f.name for f in dataclasses.fields(SearchConfig)}
    budgets = [name for name in known if name.startswith("max_") and name != "max_drop"]
    if all(getattr(config, name) is None for name in budgets):
        return "it has no budget"
    if config.unlabelled is not None:
        return "a search does not learn from unlabelled images"
    if config.minutes is None or config.minutes < _LEAST_MINUTES:
        return f"it needs --minutes of at least {_LEAST_MINUTES:g}"
    if config.strategy in ("head", "finetune"):
        return f"fit.strategy={config.strategy} trains the published network as it is"
    return ""
