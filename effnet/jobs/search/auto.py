"""A fit that searches its network where that can pay."""

import dataclasses

from effnet.errors import DataError, InputError
from effnet.jobs.fit.api import FitResult
from effnet.jobs.fit.config import FitConfig
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
    reason = _why_not(config)
    if not reason:
        shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _OWN}
        try:
            return search(**shared)
        except DataError as error:
            reason = str(error)
        except InputError as error:
            if not str(error).startswith("a search "):
                raise
            reason = str(error)
    config.listener(Said(text=f"Fitting without a search: {reason}"))
    return None


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
