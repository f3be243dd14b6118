"""Identify the network of a file of weights: the names of arrays give the naming scheme, their shapes the network.

Padding and the epsilon of BatchNorm do not follow from shapes. Torchvision, lukemelas, Keras and TensorFlow have one
rule each; timm has two, distinguished by the network's name (tf_efficientnet_b0, efficientnet_b0). EfficientDet-D6 and
-D7 differ in nothing but the scale of their anchors, so that only the name tells them.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError, WeightsError
from effnet.weights.known import known_names, known_network, known_networks, sized_network
from effnet.weights.schemes import Scheme, detect_scheme, foreign_shapes, plain_arrays
from effnet.weights.schemes.smp import check_encoder
from effnet.weights.widths import read_widths

Shapes = dict[str, tuple[int, ...]]

# Structurally pruned from the TensorFlow weights; timm keeps their padding and epsilon.
_TIMM_PRUNED = re.compile(r"(?:efficientnet_|effnet)(b[123])_pruned")
_TIMM_PRUNED_RULE: dict[str, Any] = {"padding": "same", "norm_epsilon": 1e-3}
# Detectors of the same arrays.
_TWINS = re.compile(r"efficientdet[-_](d[67])(?![a-z0-9])")
_SHOWN = 3


def identify(
    arrays: Mapping[str, np.ndarray], *, name_hint: str, model: str | None = None, where: str = ""
) -> tuple[Scheme, ArchSpec]:
    """Return the naming scheme of the arrays and the network that they belong to.

    Classes and input channels are counted; without a classifier there are 0 classes. `name_hint` is the name of the
    file or of its repository, and `where` its name in errors if that differs. `model` names the network if it is known;
    its widths may be pruned, and are then read off the shapes. Raises WeightsError if the arrays belong to another
    network or to none, or if only a name could decide.
    """
    scheme, where = detect_scheme(arrays), where or name_hint
    shapes = {key: tuple(np.shape(array)) for key, array in plain_arrays(arrays, scheme).items()}
    fitting = next((name for name in known_networks(scheme) if _fits(name, shapes, scheme)), None)
    pruned = _TIMM_PRUNED.search(model or "") or _TIMM_PRUNED.search(PurePath(name_hint).name)
    if pruned and fitting is None and scheme == "timm":
        base = model if model and "pruned" not in model else f"tf_efficientnet_{pruned[1]}"
        spec = _pruned(base, shapes, scheme, where=where)
        return scheme, dataclasses.replace(
            spec, lineage=Lineage(base=f"efficientnet_{pruned[1]}_pruned"), **_TIMM_PRUNED_RULE
        )
    if model is not None:
        spec = _check_model(model, fitting, shapes, scheme, where=where)
    elif fitting is None:
        raise _no_such_network(shapes, scheme, where=where)
    else:
        spec = sized_network(_full_name(fitting, scheme, hint=name_hint, where=where), shapes, scheme)
    if scheme == "smp":
        check_encoder(spec, where=where)
    return scheme, spec


def _has_layers_of(name: str, shapes: Shapes, scheme: Scheme) -> bool:
    body, classifier = known_names(name, scheme)
    return bool(body) and (shapes.keys() == body or shapes.keys() == body.union(classifier))


def _fits(name: str, shapes: Shapes, scheme: Scheme) -> bool:
    same = _has_layers_of(name, shapes, scheme)
    return same and foreign_shapes(sized_network(name, shapes, scheme), scheme) == shapes


def _timm_name(short: str) -> str:
    if short.startswith("edgetpu_"):
        return f"efficientnet_e{short[-1]}"
    return f"efficientnet{short}" if short.startswith("v2_") else f"efficientnet_{short}"


def _implied_name(short: str, scheme: Scheme) -> str | None:
    """Return the network's name under the rules of its scheme, or None if a scheme has more than one rule."""
    if "efficientdet" in short:
        return None if _TWINS.search(short) else short
    if short.startswith("resnet") or scheme in ("lukemelas", "keras", "tensorflow", "smp", "smp_timm"):
        return short
    return f"torchvision/efficientnet_{short}" if scheme == "torchvision" else None


def _full_name(short: str, scheme: Scheme, *, hint: str, where: str) -> str:
    """Return the full name, which implies padding and epsilon; raise WeightsError if neither scheme nor hint decide."""
    implied = _implied_name(short, scheme)
    if implied:
        return implied
    if "efficientdet" in short:
        return _twin(hint, where=where)
    plain = _timm_name(short)
    named = re.search(rf"(tf_)?{plain}(?![a-z0-9])", PurePath(hint).name.lower())
    if named:
        # The same network, trained and tested on smaller images.
        smaller = ".ns_jft_in1k_475" if short == "l2" and "475" in hint else ""
        return f"{named[1] or ''}{plain}{smaller}"
    names = [f"tf_{plain}", plain] if scheme == "timm" else [short, plain, f"torchvision/efficientnet_{short}"]
    raise WeightsError(
        f"{where} holds {short}, and only its full name tells padding and BatchNorm's epsilon: it must be one of "
        f"{', '.join(names)}; pass it with --model NAME"
    )


def _twin(hint: str, *, where: str) -> str:
    named = _TWINS.search(PurePath(hint).name.lower())
    if not named:
        raise WeightsError(
            f"{where} holds efficientdet_d6 or efficientdet_d7, which differ in the scale of their anchors alone; pass "
            "its name with --model NAME"
        )
    return f"efficientdet_{named[1]}"


def _check_model(model: str, fitting: str | None, shapes: Shapes, scheme: Scheme, *, where: str) -> ArchSpec:
    if fitting is None:
        return _pruned(model, shapes, scheme, where=where)
    expected = known_network(model, scheme)
    if expected.stages != known_network(fitting, scheme).stages or not _fits(model, shapes, scheme):
        raise WeightsError(
            f"{where} does not hold {model}: {_differences(model, shapes, scheme)}; its shapes are those of {fitting}"
        )
    implied = _implied_name(fitting, scheme)
    if implied and (told := _other_rule(implied, expected, scheme)):
        raise WeightsError(
            f"{where} has the names of {scheme}, whose networks have {told}; {model} means "
            f"{expected.padding!r} and {expected.norm_epsilon:g}; pass --model {implied}"
        )
    return sized_network(model, shapes, scheme)


def _other_rule(name: str, spec: ArchSpec, scheme: Scheme) -> str:
    """Return the padding and the epsilon of the named network in words if they are not those of `spec`, else none."""
    rule = known_network(name, scheme)
    same = (rule.padding, rule.norm_epsilon) == (spec.padding, spec.norm_epsilon)
    return "" if same else f"padding {rule.padding!r} and epsilon {rule.norm_epsilon:g}"


def check_rule(spec: ArchSpec, arrays: Mapping[str, np.ndarray], *, scheme: Scheme, name_hint: str, where: str) -> None:
    """Raise WeightsError if scheme or `name_hint` tell that the arrays need another padding or epsilon than `spec` has.

    Shapes tell neither: the network would compute something else, without an error.
    """
    if scheme in ("effnet", "timm") and not name_hint:
        return
    shapes = {key: tuple(np.shape(array)) for key, array in plain_arrays(arrays, scheme).items()}
    fitting = next((name for name in known_networks(scheme) if _fits(name, shapes, scheme)), None)
    if fitting is None:
        return
    try:
        name = _full_name(fitting, scheme, hint=name_hint, where=where)
    except WeightsError:  # nothing tells them
        return
    if told := _other_rule(name, spec, scheme):
        raise WeightsError(
            f"{where} holds {name}, which has {told}; the model has {spec.padding!r} and {spec.norm_epsilon:g}: create "
            f"it as {name}"
        )


def _pruned(model: str, shapes: Shapes, scheme: Scheme, *, where: str) -> ArchSpec:
    """Return the network of this name with the widths of the shapes, if its layers are the same."""
    get_spec(model)  # an unknown name is a SpecError of its own
    try:
        # The widths of a decoder are not read.
        if not _has_layers_of(model, shapes, scheme) or known_network(model, scheme).decoder:
            raise WeightsError(_differences(model, shapes, scheme))
        return read_widths(sized_network(model, shapes, scheme), shapes, scheme)
    except (WeightsError, SpecError) as error:
        raise WeightsError(f"{where} does not hold {model}: {error}; {_looks_like(shapes, scheme)}") from error


def _differences(model: str, shapes: Shapes, scheme: Scheme) -> str:
    """Describe the first keys and shapes that differ from those of the named network."""
    try:
        expected = foreign_shapes(sized_network(model, shapes, scheme), scheme)
    except WeightsError:
        return f"the names are those of {scheme}, which has none for this network"
    found = [f"{key} is missing" for key in expected if key not in shapes]
    found += [f"{key} is unknown" for key in sorted(shapes.keys() - expected.keys())]
    for key, shape in expected.items():
        if shapes.get(key, shape) != shape:
            found.append(f"{key} must have shape {shape} and has {shapes[key]}")
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _alike(shapes: Shapes, scheme: Scheme) -> list[str]:
    """Return the named networks with the same layers, of any widths."""
    return [name for name in known_networks(scheme) if _has_layers_of(name, shapes, scheme)]


def _looks_like(shapes: Shapes, scheme: Scheme) -> str:
    alike = _alike(shapes, scheme)
    if not alike:
        return f"no network of `effnet models list` has these {len(shapes)} arrays; get the file again, or name another"
    return f"its layers are those of {', '.join(alike)}, with other widths"


def _no_such_network(shapes: Shapes, scheme: Scheme, *, where: str) -> WeightsError:
    alike, known = _alike(shapes, scheme), known_networks(scheme)
    advice = "; pass the one it was pruned from with --model NAME" if alike else ""
    near = alike[0] if alike else max(known, key=lambda name: _overlap(name, shapes, scheme))
    return WeightsError(
        f"{where} must hold a network that effnet knows: {_looks_like(shapes, scheme)}{advice} (against {near}: "
        f"{_differences(near, shapes, scheme)})"
    )


def _overlap(name: str, shapes: Shapes, scheme: Scheme) -> float:
    """Return the share of names common to a named network and these arrays."""
    body, classifier = known_names(name, scheme)
    names = body.union(classifier)
    return len(shapes.keys() & names) / max(1, len(shapes.keys() | names))
