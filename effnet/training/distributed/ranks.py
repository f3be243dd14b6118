"""The processes that train together: their ranks, collective operations, and joint shutdown.

All of them meet between two collective sums. A failure of one in between is shared at the meeting, so that none waits
for another in vain and the reason is printed once.
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

from effnet.errors import EffnetError, InputError, SaidElsewhere
from effnet.system.signals import stop

# While the first process plans, exports and measures, the others wait for it; a lost connection is noticed at once.
_PATIENCE = timedelta(days=30)
# As in torch's DistributedDataParallel: larger sums gain nothing, and smaller ones can begin earlier.
_BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One process's share of a step: its images `first` to `last`, which have `weight` in the mean loss.

    `smallest` and `largest` are the smallest and largest share of any process, in images.
    """

    first: int
    last: int
    weight: float
    smallest: int
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """The shared state after all processes have met: whether any was interrupted, and the clock of the first."""

    asked: bool
    clock: float


@dataclass(slots=True, kw_only=True, eq=False)
class Ranks:
    """This process among those that train together; by default it is alone, and then every method does nothing.

    `words` is the process group for numbers and objects; gradients go through torch's default group. `over` says that
    an error was shared or the connection lost, so that the processes must not wait for each other any more.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device | None = None
    words: distributed.ProcessGroup | None = None
    over: bool = False

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def share(self, count: int, *, least: int = 2) -> Share:
        """Return this process's share of a step of `count` images.

        If there are fewer than `least` for each, every process computes the whole step, and the mean is the same.
        """
        if count < least * self.size:
            return Share(first=0, last=count, weight=1 / self.size, smallest=count, largest=count)
        first, last = self.part(count)
        largest = -(-count // self.size)
        return Share(
            first=first, last=last, weight=(last - first) / count, smallest=count // self.size, largest=largest
        )

    def part(self, count: int) -> tuple[int, int]:
        """Return the first and last index (excluded) of this process's part of `count` items."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def meet(self, *, asked: bool = False) -> Met:
        """Wait for all processes; `asked` says that this process was interrupted, so that the run ends on all.

        Raises the error of a failed process; only the first process's error has the message, printed once.
        """
        return self._meet(None, asked=asked)

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes at their next meeting if one of them fails inside the context."""
        if self.size == 1:
            yield
            return
        try:
            yield
        except KeyboardInterrupt:  # all know of it, or this process does not wait for the others any more
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
        """Return the first process's `value` on every process, however long that takes."""
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
        """Raise the error on the first process, and SaidElsewhere on the others; a bug is raised where it is."""
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
    """Yield lists of tensors of one type, together at most as large as a bucket if there are several."""
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
    """Turn a broken connection inside the context into an EffnetError."""
    try:
        yield
    except RuntimeError as error:
        _leave(
            ranks,
            "another process of this training has died or cannot be reached; its own output may say why. "
            "Run the same command with --resume to continue from the last checkpoint",
            error,
        )


def _leave(ranks: Ranks, text: str, error: Exception | None = None) -> None:
    ranks.over = True
    # The second process prints the message too, because the first may be the one that has died.
    raise (EffnetError(text) if ranks.rank < 2 else SaidElsewhere(EffnetError.exit_code)) from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """Yield this process's ranks if `torchrun` started it, else ALONE.

    Raises InputError if a machine has fewer GPUs than processes.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    ranks = _join()
    with _ended_by_word(ranks):
        yield ranks
    # Threads of gloo that live on at the end of a process abort it at times; NCCL complains.
    distributed.destroy_process_group()


def _join() -> Ranks:
    local_size, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < local_size:
        raise InputError(
            f"a machine must have a GPU for each of its processes; this one has {gpus} for {local_size}: start with "
            f"--nproc-per-node {gpus}, or hide the GPUs with CUDA_VISIBLE_DEVICES="
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if gpus else "gloo")
    return Ranks(
        rank=distributed.get_rank(),
        size=distributed.get_world_size(),
        local_size=local_size,
        device=device,
        words=distributed.new_group(backend="gloo", timeout=_PATIENCE),
    )


@contextmanager
def _ended_by_word(ranks: Ranks) -> Iterator[None]:
    """Turn SIGTERM inside the context into an EffnetError: launchers send it to the others if one process dies."""

    def end(number: int, frame: FrameType | None) -> None:
        _leave(
            ranks,
            "this training was terminated (SIGTERM), by a person or because another of its processes has died. "
            "Run the same command with --resume to continue from the last checkpoint",
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
