"""Keep one box of each object: hard suppression by class, and Gaussian soft suppression.

Source: Bodla et al., "Soft-NMS", ICCV 2017, equation 4; torchvision.ops.batched_nms, to which the first is equal.
"""

import numpy as np

# Candidates are compared in groups: with those kept before, and with each other.
_GROUP = 64


def suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, *, iou: float = 0.6, most: int = 100
) -> np.ndarray:
    """Return the places of the boxes [n, 4] that are kept, int64, the highest score first, at most `most`.

    A box is dropped if one of a higher score and the same class is kept and overlaps it by more than `iou`. Of equal
    scores, the earlier box comes first.
    """
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = (np.ascontiguousarray(side) for side in boxes[order].T)
    area, classes = (right - left) * (bottom - top), classes[order]
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), _GROUP):
        group = np.arange(start, min(start + _GROUP, len(order)))
        before = np.concatenate((kept, group))
        wide = np.minimum(right[group, None], right[before]) - np.maximum(left[group, None], left[before])
        high = np.minimum(bottom[group, None], bottom[before]) - np.maximum(top[group, None], top[before])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        union = area[group, None] + area[before] - shared
        # Boxes without an area overlap nothing.
        over = (np.divide(shared, union, out=np.zeros_like(shared), where=union > 0) > iou) & (
            classes[group, None] == classes[before]
        )
        alive = ~over[:, : len(kept)].any(1)
        within = over[:, len(kept) :]
        for place in range(len(group)):
            if alive[place]:
                alive[place + 1 :] &= ~within[place, place + 1 :]
        kept = np.concatenate((kept, group[alive]))
        if len(kept) >= most:
            break
    return order[kept[:most]]


def soften(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    sigma: float = 0.5,
    least: float = 0.001,
    most: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the boxes [n, 4] that are kept, int64, at most `most`, and their lowered scores.

    Each box lowers the scores of those of its class that it overlaps, by exp(-iou^2 / sigma), the highest first, until
    no score reaches `least`.
    """
    left, top, right, bottom = (np.ascontiguousarray(side, np.float64) for side in boxes.T)
    area = (right - left) * (bottom - top)
    lowered = scores.astype(np.float64)
    kept: list[int] = []
    found: list[float] = []
    while len(lowered) and len(kept) < most:
        best = int(lowered.argmax())
        if lowered[best] < least:
            break
        kept.append(best)
        found.append(float(lowered[best]))
        wide = np.minimum(right, right[best]) - np.maximum(left, left[best])
        high = np.minimum(bottom, bottom[best]) - np.maximum(top, top[best])
        shared = np.maximum(wide, 0) * np.maximum(high, 0) * (classes == classes[best])
        union = area + area[best] - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        lowered *= np.exp(-(overlap**2) / sigma)
        lowered[best] = -1
    return np.array(kept, np.int64), np.array(found)
