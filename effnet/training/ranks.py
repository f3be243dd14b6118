"""The processes that train together: who is who, how they share numbers, and how they end together.

Between two sums of theirs, all of them meet. What fails on one of them in between is told there, so that none waits
for another in vain and the reason is said once.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed

from effnet.errors import EffnetError, InputError, MissingExtraError, SaidElsewhere
from effnet.system.signals import stop

# While the first process plans, exports and measures, the others wait for it; a lost connection is noticed at once.
_PATIENCE = timedelta(days=30)
# As torch's DistributedDataParallel: larger sums gain nothing, and smaller ones can begin earlier.
_BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process does of a step: images `first` to `last` of it, which weigh `weight` of its mean.

    `smallest` and `largest` are what any process has, in images.
    """

    first: int
    last: int
    weight: float
    smallest: int
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """What all processes know after they have met: whether anybody asked for the end, and the first one's clock."""

    asked: bool
    clock: float


@dataclass(slots=True, kw_only=True, eq=False)
class Ranks:
    """This process among those that train together; by default it is alone, and then nothing here does anything.

    `words` is the group in which they tell each other numbers and objects; gradients go through torch's default one.
    `over` says that they have told each other of an error or lost each other, and shall wait for each other no more.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device | None = None
    words: distributed.ProcessGroup | None = None
    over: bool = False

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, count: int, *, least: int = 2) -> Share:
        """Return what this process does of a step of `count` images.

        Where there are fewer than `least` for each, every process does the whole step, and the mean is the same.
        """
        if count < least * self.size:
            return Share(first=0, last=count, weight=1 / self.size, smallest=count, largest=count)
        first, last = self.part(count)
        largest = -(-count // self.size)
        return Share(
            first=first, last=last, weight=(last - first) / count, smallest=count // self.size, largest=largest
        )

    def part(self, count: int) -> tuple[int, int]:
        """Return where this process's part of `count` things begins and ends."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def meet(self, *, asked: bool = False) -> Met:
        """Wait for all processes; `asked` says that the run shall end, as soon as all know.

        Raises what another process has failed with; only the first one's error has the words, to be said once.
        """
        return self._meet(None, asked=asked)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, what fails on one process ends all of them, where they meet next."""
        if self.size == 1:
            yield
            return
        try:
            yield
        except KeyboardInterrupt:  # each has heard of it, or does not wait for the others any more
            self.over = True
            raise
        except Exception as error:
            if self.over:
                raise
            self._meet(error, asked=False)

    def total(self, numbers: Tensor) -> Tensor:
        """Return the sum of every process's `numbers`, on the CPU; all must have met before."""
        if self.size == 1:
            return numbers
        numbers = numbers.cpu().clone()
        with _watched(self):
            distributed.all_reduce(numbers, group=self.words)
        return numbers

    def add_(self, tensors: Sequence[Tensor]) -> None:
        """Make each of `tensors`, on this process's device, the sum of every process's; all must have met before."""
        if self.size == 1:
            return
        with _watched(self):
            sums = []
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                sums.append((bucket, flat, distributed.all_reduce(flat, async_op=True)))
            for bucket, flat, work in sums:
                work.wait()
                pieces = flat.split([tensor.numel() for tensor in bucket])
                for tensor, piece in zip(bucket, pieces, strict=True):
                    tensor.copy_(piece.view(tensor.shape))

    def tell(self, value: Any) -> Any:
        """Return the first process's `value` on every process, however long it takes to come."""
        if self.size == 1:
            return value
        box = [value]
        with _watched(self):
            distributed.broadcast_object_list(box, src=0, group=self.words, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's `value`, in their order; all must have met before."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _watched(self):
            distributed.all_gather_object(found, value, group=self.words)
        return found

    def _meet(self, error: Exception | None, *, asked: bool) -> Met:
        if self.size == 1:
            return Met(asked=asked, clock=time.perf_counter())
        clock = time.perf_counter() if self.main else 0.0
        failed, wanted, clock = self.total(
            torch.tensor([error is not None, asked, clock], dtype=torch.float64)
        ).tolist()
        if failed:
            reasons = self.gather(None if error is None else _reason(self.rank, error))
            self._end(error, next(reason for reason in reasons if reason is not None))
        return Met(asked=wanted > 0, clock=clock)

    def _end(self, error: Exception | None, reason: tuple[str, int]) -> None:
        """Raise the reason on the first process, and on the others that it is said there; a bug shows where it is."""
        self.over = True
        text, code = reason
        if error is not None and (self.main or not isinstance(error, EffnetError)):
            raise error
        if self.main:
            raise (InputError if code == InputError.exit_code else EffnetError)(text)
        raise SaidElsewhere(code)


ALONE = Ranks()


def _reason(rank: int, error: Exception) -> tuple[str, int]:
    if isinstance(error, EffnetError):
        return str(error), error.exit_code
    return f"process {rank} of the training failed: {type(error).__name__}: {error}", EffnetError.exit_code


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one type, together at most as large as a bucket where there are several."""
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        for tensor in (tensor for tensor in tensors if tensor.dtype == kind):
            if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > _BUCKET_BYTES:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


@contextmanager
def _watched(ranks: Ranks) -> Iterator[None]:
    """Inside, a connection that breaks is an error in words."""
    try:
        yield
    except RuntimeError as error:
        _leave(
            ranks,
            "another process of this training has died or cannot be reached; what it said itself may tell why. "
            "Training goes on from the last checkpoint with the same command and --resume",
            error,
        )


def _leave(ranks: Ranks, text: str, error: Exception | None = None) -> None:
    ranks.over = True
    # The second process speaks too, because the first may be the one that has died.
    raise (EffnetError(text) if ranks.rank < 2 else SaidElsewhere(EffnetError.exit_code)) from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """Yield this process among those that `torchrun` or `accelerate launch` have started; without them it is alone.

    Raises MissingExtraError without accelerate, InputError where a machine has fewer GPUs than processes.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    ranks = _join()
    with _ended_by_word(ranks):
        yield ranks
    if ranks.device is not None and ranks.device.type == "cuda":  # NCCL complains otherwise
        distributed.destroy_process_group()


def _join() -> Ranks:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", "train") from error
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = 0 if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") else torch.cuda.device_count()
    if 0 < gpus < local_size:
        raise InputError(
            f"a machine must have a GPU for each of its processes; this one has {gpus} for {local_size}: start "
            f"--nproc-per-node {gpus}, or hide the GPUs with CUDA_VISIBLE_DEVICES="
        )
    state = PartialState() if gpus else PartialState(cpu=True, backend="gloo")
    return Ranks(
        rank=state.process_index,
        size=state.num_processes,
        local_size=local_size,
        device=state.device,
        words=distributed.new_group(backend="gloo", timeout=_PATIENCE),
    )


@contextmanager
def _ended_by_word(ranks: Ranks) -> Iterator[None]:
    """Inside, SIGTERM is an error in words: launchers send it to all that are left when one process has died."""

    def end(number: int, frame: FrameType | None) -> None:
        _leave(
            ranks,
            "this training was told to end (SIGTERM), by a person or because another of its processes has died. "
            "It goes on from the last checkpoint with the same command and --resume",
        )

    main_thread, before = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGTERM)
    if not main_thread or before not in (signal.SIG_DFL, stop):
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
