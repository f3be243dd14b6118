"""Zones and lines in a frame, and the overlap of boxes; all in shares of the frame's sides."""

import math
from collections.abc import Sequence

from effnet.watching.record import Box, Point


def foot(box: Box) -> Point:
    """Return where an object stands: the middle of the lower side of its box."""
    return (box[0] + box[2]) / 2, box[3]


def is_inside(point: Point, corners: Sequence[Point]) -> bool:
    """Return whether a point lies in a polygon, by the number of edges that a ray from it crosses."""
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def beside(point: Point, begin: Point, end: Point) -> float:
    """Return the distance of a point from the line through `begin` and `end`.

    It is above 0 on the right-hand side of someone who looks from `begin` to `end`.
    """
    (px, py), (ax, ay), (bx, by) = point, begin, end
    # y grows downwards, so a positive cross product turns to the right.
    return ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / math.hypot(bx - ax, by - ay)


def meets(before: Point, after: Point, begin: Point, end: Point) -> bool:
    """Return whether the way from `before` to `after`, on both sides of a line, passes between its ends."""
    first, second = beside(before, begin, end), beside(after, begin, end)
    if first == second:
        return False
    share = first / (first - second)
    x, y = (old + share * (new - old) for old, new in zip(before, after, strict=True))
    (ax, ay), (bx, by) = begin, end
    along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    return 0 <= along <= 1


def overlap(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared)
