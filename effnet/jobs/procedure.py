"""How jobs are carried out, as opposed to what is requested of them: values that only programs and tests replace."""

from collections.abc import Callable
from dataclasses import dataclass, field

from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.nas.policy import USUAL as POLICY
from effnet.nas.policy import Policy
from effnet.planner.oracle import measure_random
from effnet.planner.plan import MAX_FALLBACKS
from effnet.planner.space import SPACE, SearchSpace
from effnet.training.state.position import CHECKPOINT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How a job measures, plans and saves; the defaults are production's.

    `stopwatch` times every file, and its clock is the job's; `oracle` measures an untrained candidate, as
    `measure_random`. `space` holds the networks that a fit chooses from, of which it trains at most one and
    `fallbacks`; training saves a checkpoint every `checkpoint_seconds`. If `draws`, the report has plots. `search` is
    the policy of an architecture search.
    """

    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    oracle: Callable[..., Timing] = measure_random
    space: SearchSpace = SPACE
    fallbacks: int = MAX_FALLBACKS
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    search: Policy = POLICY
    draws: bool = True


USUAL = Procedure()
