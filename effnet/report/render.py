"""Rendering of templates to pages and cards: filters, escaping, and files that appear whole or not at all."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.errors import MissingExtraError
from effnet.report import text as wording
from effnet.system.files import written_whole

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str | Mapping[str, str], values: Mapping[str, Any]) -> str:
    """Return a template of this package, or another's text as {name: text}, rendered.

    A name ends in .html.j2 for a page, in .md.j2 for Markdown. Raises MissingExtraError without jinja2.
    """
    try:
        from jinja2 import ChoiceLoader, DictLoader
    except ImportError as error:
        raise MissingExtraError("jinja2", "train") from error
    name = template if isinstance(template, str) else next(iter(template))
    environment = _environment(is_page=name.endswith(".html.j2"))
    if not isinstance(template, str):
        assert environment.loader is not None
        environment = environment.overlay(loader=ChoiceLoader([DictLoader(template), environment.loader]))
    return environment.get_template(name).render(values)


@lru_cache
def _environment(*, is_page: bool) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        """Make every value that a template prints printable, so that no single place can forget to."""
        if value is None:
            return wording.ABSENT
        if isinstance(value, str) and not isinstance(value, Markup):
            return wording.printable(value) if is_page else wording.markdown(value)
        return value

    environment = Environment(
        loader=PackageLoader("effnet.report"),
        autoescape=is_page,
        finalize=shown,
        undefined=StrictUndefined,
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
