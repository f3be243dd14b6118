"""Rendering of templates to pages and cards: filters, escaping, and files that appear whole or not at all."""

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.errors import MissingExtraError
from effnet.report import text as wording
from effnet.system.files import written_whole

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template of this package, rendered; raise MissingExtraError without jinja2."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("jinja2", "train") from error
    return _environment(is_page=template.endswith(".html.j2")).get_template(template).render(values)


@lru_cache
def _environment(*, is_page: bool) -> "Environment":
    from jinja2 import ChainableUndefined, Environment, PackageLoader
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        """Make every value that a template prints printable, so that no single place can forget to."""
        if value is None or isinstance(value, ChainableUndefined):
            return wording.ABSENT
        if isinstance(value, str) and not isinstance(value, Markup):
            return wording.printable(value) if is_page else wording.markdown(value)
        return value

    environment = Environment(
        loader=PackageLoader("effnet.report"),
        autoescape=is_page,
        finalize=shown,
        # An older or partial report lacks keys; it still has a page.
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": wording.percent,
        "integer": wording.integer,
        "short": wording.short,
        "significant": wording.significant,
        "duration": wording.duration,
        "quantity": wording.quantity,
        "moment": wording.moment,
        "probability": wording.probability,
        "fenced": _fenced,
        "code": _code,
    }
    environment.filters.update(filters)
    return environment


def strict(value: Any) -> Any:
    """Return data that strict JSON and UTF-8 can hold: no NaN, no infinity, no numpy, no lone surrogate."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {strict(str(key)): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        # The path of a file whose name is not valid UTF-8 holds lone surrogates.
        return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def replace_text(path: Path, text: str) -> None:
    """Write text to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def _code(text: Any) -> str:
    """Return one line of code as it is, inside a fenced block."""
    from markupsafe import Markup

    return Markup(wording.printable(str(text)).replace("`", ""))


def _fenced(text: Any, language: str) -> str:
    """Return text as a fenced block of Markdown; the fence outgrows any run of backticks inside."""
    from markupsafe import Markup

    line = wording.printable(str(text))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return Markup(f"{fence}{language}\n{line}\n{fence}")
