"""The error of a run whose memory ran out."""

from collections.abc import Iterator
from contextlib import contextmanager

from effnet.data.preprocess import Preprocess
from effnet.errors import EffnetError
from effnet.system.memory import is_shortage
from effnet.training.memory.predict import largest_part
from effnet.training.recipe.progressive import recipe_at, resolution_at
from effnet.training.recipe.schema import Recipe


@contextmanager
def shortage_told(recipe: Recipe, preprocess: Preprocess, *, epoch: int) -> Iterator[None]:
    """Turn an out-of-memory error inside the context into an EffnetError with the sizes and advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        now = recipe_at(recipe, epoch)
        side = resolution_at(recipe, epoch, final=preprocess.resolution)
        less = "" if recipe.train.recompute == "stages" else "; train.recompute=stages trades time for memory"
        raise EffnetError(
            f"memory ran out in epoch {epoch + 1}, with {largest_part(now)} images of {side} x {side} pixels at "
            f"once (train.batch_size {now.train.batch_size}, train.micro_batch {now.train.micro_batch}): --set "
            "fit.batch=auto finds the largest micro-batch that fits, or set a smaller train.micro_batch; a smaller "
            f"--resolution or another --model needs less per image{less}. torch said: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
