"""Reads the recipe that a user names: a built-in name, a JSON file, or the user's own Python file."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.errors import InputError, nearest
from effnet.system.files import read_json
from effnet.system.text import brief, reason_of
from effnet.training.recipe.file import recipe_from_dict
from effnet.training.recipe.published import advprop, imagenet_timm_ra, imagenet_v1, imagenet_v2, noisy_student
from effnet.training.recipe.schema import Recipe
from effnet.training.recipe.small import cifar10, robust, small_data

MakeRecipe = Callable[[ArchSpec], Recipe]

RECIPES: dict[str, MakeRecipe] = {
    make.__name__: make
    for make in (small_data, robust, cifar10, imagenet_v1, imagenet_v2, imagenet_timm_ra, noisy_student, advprop)
}


def summary(name: str) -> str:
    """Return the first line of a named recipe's docstring."""
    return (inspect.getdoc(RECIPES[name]) or "").partition("\n")[0]


def read_recipe(subject: str | os.PathLike[str], spec: ArchSpec) -> Recipe:
    """Return the recipe named by `subject`, for the network `spec`.

    `subject` is a name in RECIPES, a JSON file such as a run folder's recipe.json, or a Python file that defines a
    function `recipe(spec) -> Recipe`, which is run. Raises InputError if it is none of these, with the nearest name,
    and for a file that does not make a recipe.
    """
    text = os.fspath(subject)
    if text in RECIPES:
        return _plain(RECIPES[text](spec))
    path = Path(text)
    if path.suffix == ".json":
        return _from_json(path)
    if path.suffix == ".py":
        return _from_python(path, spec)
    hint = nearest(text, RECIPES)
    raise InputError(f"a recipe must be one of {', '.join(RECIPES)}, or a .json or .py file; got {brief(text)}{hint}")


def _plain(recipe: Recipe) -> Recipe:
    """Return the recipe as read back from JSON: integers in float fields become floats."""
    return recipe_from_dict(recipe.to_dict())


def _from_json(path: Path) -> Recipe:
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a recipe as JSON; it cannot be read: {reason_of(error)}") from error
    try:
        return recipe_from_dict(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _from_python(path: Path, spec: ArchSpec) -> Recipe:
    """Run the user's file as a module of its own, not in sys.modules, and return the recipe of its function."""
    loaded = importlib.util.spec_from_file_location("effnet_user_recipe", path)
    if not path.is_file() or loaded is None or loaded.loader is None:
        raise InputError(f"{path} must be a Python file that defines recipe(spec); there is no such file")
    module = importlib.util.module_from_spec(loaded)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # write no bytecode next to the user's file
    try:
        loaded.loader.exec_module(module)
        found = module.recipe(spec)
    except Exception as error:  # it is not our code: whatever it raises, the file must be corrected
        raise InputError(f"{path} must make a recipe; it raised {_where(error, path)}") from error
    finally:
        sys.dont_write_bytecode = before
    if not isinstance(found, Recipe):
        raise InputError(f"recipe(spec) in {path} must return an effnet.Recipe; it returned {found!r:.100}")
    return _plain(found)


def _where(error: Exception, path: Path) -> str:
    """Return the error, and the last line of the file in its traceback."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    place = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{place}: {error}"
