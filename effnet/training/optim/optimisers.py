"""Optimisers and their parameter groups."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from effnet.training.recipe.schema import Recipe

Groups = list[dict[str, Any]]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; weight decay covers kernels and matrices, biases if requested, never BatchNorm.

    Its groups carry `lr_scale`, the factor of the recipe's layer decay at their depth.
    """
    names = [name for name, _ in model.named_parameters()]
    depth = _depths(model) if recipe.train.layer_decay < 1 else dict.fromkeys(names, 0)
    norms = {id(p) for module in model.modules() if _is_norm(module) for p in module.parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = id(parameter) not in norms and (parameter.ndim > 1 or recipe.optimizer.decay_vectors)
        groups.setdefault((depth[name], decays), []).append(parameter)
    rows = [
        {
            "params": parameters,
            "weight_decay": recipe.optimizer.weight_decay if decays else 0.0,
            "lr_scale": recipe.train.layer_decay**below,
        }
        for (below, decays), parameters in groups.items()
    ]
    return _optimizer(rows, recipe)


def _optimizer(rows: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    plan, lr = recipe.optimizer, recipe.train.peak_lr
    if plan.name == "sgd":
        return _SGD(rows, lr=lr, momentum=plan.momentum, nesterov=plan.nesterov, fused=True)
    if plan.name == "rmsprop_tf":
        return RMSPropTF(rows, lr=lr, momentum=plan.momentum, decay=plan.decay, eps=plan.eps)
    if plan.name == "lamb":
        return Lamb(rows, lr=lr, betas=(plan.momentum, plan.decay), eps=plan.eps)
    return _AdamW(rows, lr=lr, betas=(plan.momentum, plan.decay), eps=plan.eps, fused=True)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm)


class _Uncompiled(torch.optim.Optimizer):
    """An optimiser whose methods do not import torch's compiler, which nothing here uses and which takes seconds.

    torch wraps these methods to hide them from the compiler; the methods themselves are the same.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class _SGD(_Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _AdamW(_Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class _Foreach(_Uncompiled):
    """An optimiser that handles all parameters of a group in a few calls of torch's foreach functions."""

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the initial state of a parameter."""
        raise NotImplementedError

    def _move_(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        """Update the parameters of a group by one step."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("this optimiser takes no closure; compute the gradients before the step")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if parameter not in self.state:
                    self.state[parameter] = self._start(parameter)
            if parameters:
                self._move_(group, parameters, [p.grad for p in parameters])

    def _states(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        return [self.state[parameter][name] for parameter in parameters]


class RMSPropTF(_Foreach):
    """RMSProp as in TensorFlow, with weight decay as part of the gradient.

    g' = g + weight_decay * w;  s = decay * s + (1 - decay) * g'^2, s = 1 at first;
    b = momentum * b + lr * g' / sqrt(s + eps);  w = w - b.
    torch's adds eps after the root, begins with s = 0 and keeps the learning rate out of b: with an eps of 1e-3 and a
    changing learning rate the updates differ. Source: tf.compat.v1.train.RMSPropOptimizer; the decay as in
    tensorflow/tpu, efficientnet/main.py (L2 in the loss).
    """

    def __init__(self, groups: Groups, *, lr: float, momentum: float, decay: float, eps: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "decay": decay, "eps": eps, "weight_decay": 0.0})

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        return {"square": torch.ones_like(parameter), "momentum": torch.zeros_like(parameter)}

    def _move_(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        squares, moves = self._states("square", parameters), self._states("momentum", parameters)
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["decay"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(moves, group["momentum"])
        torch._foreach_addcdiv_(moves, grads, roots, value=group["lr"])
        torch._foreach_sub_(parameters, moves)


class Lamb(_Foreach):
    """LAMB: Adam whose step has, in every layer, the norm of the weights times the learning rate.

    Parameters without weight decay are updated as by Adam. Gradients are not clipped here. It is written out because
    the packages that have it (timm, pytorch-optimizer) would be a dependency for these few lines. Source: You et al.
    2020, algorithm 2, with the bias correction; timm.optim.Lamb.
    """

    def __init__(self, groups: Groups, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32),
            "mean": torch.zeros_like(parameter),
            "square": torch.zeros_like(parameter),
        }

    def _move_(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        (first, second), decay = group["betas"], group["weight_decay"]
        means, squares = self._states("mean", parameters), self._states("square", parameters)
        steps = self._states("step", parameters)
        torch._foreach_add_(steps, 1)
        counts = [int(step) for step in steps]
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - second)
        roots = torch._foreach_div(squares, [1 - second**count for count in counts])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        moves = torch._foreach_div(means, [1 - first**count for count in counts])
        torch._foreach_div_(moves, roots)
        if decay:
            torch._foreach_add_(moves, parameters, alpha=decay)
            torch._foreach_mul_(moves, _trust(parameters, moves))
        torch._foreach_add_(parameters, moves, alpha=-group["lr"])


def _trust(parameters: list[Tensor], moves: list[Tensor]) -> list[Tensor]:
    """Return the trust ratio of each parameter: its norm over that of its update, 1 if either is 0."""
    lengths, ways = torch._foreach_norm(parameters), torch._foreach_norm(moves)
    return [torch.where((a > 0) & (b > 0), a / b, 1.0) for a, b in zip(lengths, ways, strict=True)]


def _depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter: how many parts (head, stages, stem) lie between it and the classifier."""

    def part(name: str) -> str:
        words = name.split(".")
        return ".".join(words[:2]) if words[0] == "stages" else words[0]

    order = list(dict.fromkeys(part(name) for name, _ in model.named_parameters()))
    return {name: len(order) - 1 - order.index(part(name)) for name, _ in model.named_parameters()}
