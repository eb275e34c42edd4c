"""Makes the golden files of the optimizers whose elements depend on each other: python3 coupled.py data

As generate.py, on which it is built: the same needs, the same files (in data/coupled/), with these
besides in "case":
    dtypes   by parameter: its own dtype; it is the same in both runs
    sample   of tensors with more than SAMPLED_FROM elements every sample-th one is kept, flat
coupled.json lists the cases. Adafactor and Muon are torch.optim's. LAMB, LARS and row-wise Adagrad are
written here from their publications, in plain torch.
"""

import dataclasses
import json
import math
import os
import sys

import generate
import torch
from ieee_roots import IeeeRoots
from torch.testing._internal.common_optimizers import optim_db

SAMPLED_FROM = 4096
SAMPLE = 997

SHAPES = {
    "scalar": [],
    "one": [1],
    "vector": [11],
    "matrix": [5, 7],
    "late": [2, 9],
    "column": [6, 1],
    "cube": [3, 5, 4],
}
# Adafactor's step fails on a tensor without elements (a division by zero).
WITH_EMPTY = {**SHAPES, "empty": [0, 3]}
MATRICES = {
    "one": [1, 1],
    "matrix": [5, 7],
    "late": [2, 9],
    "tall": [9, 4],
    "row": [1, 6],
    "empty": [0, 3],
}
WITH_ROWS = {
    "one": [1, 1],
    "matrix": [5, 7],
    "late": [2, 9],
    "column": [6, 1],
    "cube": [3, 5, 4],
    "empty": [0, 3],
}
LARGE = {"square": [512, 512], "tall": [320, 130]}
ABSENT = {"late": [1, 2, 3, 4, 5, 6, 11], "scalar": [2]}
ZERO = {"matrix": [4], "one": [1], "vector": [1]}
SECOND_GROUP = ["matrix", "one"]
CHANGED_AT = 10
SHAPES_OF = {
    "Adafactor": SHAPES,
    "Muon": MATRICES,
    "LAMB": WITH_EMPTY,
    "LARS": WITH_EMPTY,
    "RowWiseAdagrad": WITH_ROWS,
}

# name: (class, the constructor's arguments, the second group's own options, what is set in the
# first group before step CHANGED_AT)
CASES = {
    "adafactor": (
        "Adafactor",
        {"lr": 0.5},
        {"d": 1.5, "weight_decay": 0.1, "eps": [1e-2, 1e-2]},
        {"lr": 0.1, "beta2_decay": -0.5},
    ),
    "adafactor_maximize": (
        "Adafactor",
        {"lr": 0.5, "maximize": True, "weight_decay": 0.1},
        {"maximize": False, "beta2_decay": -1.0},
        {"eps": [1e-3, 0.5]},
    ),
    "muon": (
        "Muon",
        {"lr": 0.05},
        {"nesterov": False, "momentum": 0.5, "weight_decay": 0.0},
        {"lr": 0.02, "ns_steps": 3},
    ),
    "muon_match_rms_adamw": (
        "Muon",
        {"lr": 0.01, "adjust_lr_fn": "match_rms_adamw"},
        {"adjust_lr_fn": "original", "ns_coefficients": [3.0, -4.0, 2.0]},
        {"weight_decay": 0.5},
    ),
    "lamb": (
        "LAMB",
        {"lr": 0.05, "weight_decay": 0.1},
        {"weight_decay": 0.0, "betas": [0.8, 0.99]},
        {"betas": [0.5, 0.9]},
    ),
    "lamb_always_adapt": (
        "LAMB",
        {"lr": 0.05, "weight_decay": 0.0, "always_adapt": True},
        {"maximize": True, "eps": 1e-2},
        {"lr": 0.1},
    ),
    "lars": (
        "LARS",
        {"lr": 2.0, "momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.05},
        {"weight_decay": 0.0, "momentum": 0.5, "dampening": 0.25},
        {"momentum": 0.5},
    ),
    "lars_always_adapt": (
        "LARS",
        {"lr": 2.0, "always_adapt": True, "maximize": True, "trust_coefficient": 0.05},
        {"maximize": False, "momentum": 0.9, "nesterov": True, "eps": 0.5},
        {"lr": 1.0},
    ),
    "row_wise_adagrad": (
        "RowWiseAdagrad",
        {"lr": 0.5, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
        {"weight_decay": 0.1, "maximize": True, "eps": 1e-3},
        {"lr": 0.1},
    ),
}


class Published(torch.optim.Optimizer):
    """An optimizer as published. `DEFAULTS` are its options; update() changes one parameter."""

    def __init__(self, params, **options):
        super().__init__(params, {**self.DEFAULTS, **options})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    grad = -param.grad if group["maximize"] else param.grad.clone()
                    self.update(param, grad, self.state[param], group)

    @staticmethod
    def count(state):
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
        state["step"] += 1
        return state["step"].item()


def exact_norm(tensor):
    """The 2-norm, rounded once to the tensor's dtype."""
    norm = math.sqrt(math.fsum(x * x for x in tensor.double().flatten().tolist()))
    return torch.tensor(norm, dtype=torch.float64).to(tensor.dtype).item()


class LAMB(Published):
    """arXiv 1904.00962v5, algorithm 2, with Adam's bias correction."""

    DEFAULTS = {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 1e-2,
        "always_adapt": False,
        "maximize": False,
    }

    def update(self, param, grad, state, group):
        step = self.count(state)
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        beta1, beta2 = group["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).add_(grad * grad, alpha=1 - beta2)
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        update = m_hat / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * param
        ratio = 1.0
        if group["weight_decay"] != 0 or group["always_adapt"]:
            param_norm, update_norm = exact_norm(param), exact_norm(update)
            if param_norm > 0 and update_norm > 0:
                ratio = param_norm / update_norm
        param.sub_(group["lr"] * ratio * update)


class LARS(Published):
    """arXiv 1708.03888, the local rate applied to the gradient as in timm and apex."""

    DEFAULTS = {
        "lr": 1.0,
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "trust_coefficient": 1e-3,
        "eps": 1e-8,
        "always_adapt": False,
        "maximize": False,
    }

    def update(self, param, grad, state, group):
        decay, momentum = group["weight_decay"], group["momentum"]
        ratio = 1.0
        if decay != 0 or group["always_adapt"]:
            param_norm, grad_norm = exact_norm(param), exact_norm(grad)
            if param_norm > 0 and grad_norm > 0:
                ratio = group["trust_coefficient"] * param_norm
                ratio /= grad_norm + decay * param_norm + group["eps"]
        scaled = ratio * (grad + decay * param)
        if momentum != 0:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = scaled.clone()
            else:
                state["momentum_buffer"] = (
                    momentum * state["momentum_buffer"] + (1 - group["dampening"]) * scaled
                )
            buffer = state["momentum_buffer"]
            scaled = scaled + momentum * buffer if group["nesterov"] else buffer
        param.sub_(group["lr"] * scaled)


class RowWiseAdagrad(Published):
    """FBGEMM's EXACT_ROWWISE_ADAGRAD on all rows, with torchrec's options."""

    DEFAULTS = {
        "lr": 1e-2,
        "lr_decay": 0.0,
        "eps": 1e-10,
        "weight_decay": 0.0,
        "initial_accumulator_value": 0.0,
        "maximize": False,
    }

    def __init__(self, params, **options):
        super().__init__(params, **options)
        for group in self.param_groups:
            for param in group["params"]:
                begin = group["initial_accumulator_value"]
                self.state[param] = {
                    "step": torch.tensor(0.0),
                    "sum": torch.full([*param.shape[:-1], 1], begin, dtype=param.dtype),
                }

    def update(self, param, grad, state, group):
        step = self.count(state)
        grad = grad + group["weight_decay"] * param
        state["sum"] += (grad * grad).sum(-1, keepdim=True) / param.shape[-1]
        lr = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        param.sub_(lr / (state["sum"].sqrt() + group["eps"]) * grad)


OWN = {made.__name__: made for made in (LAMB, LARS, RowWiseAdagrad)}


@dataclasses.dataclass
class Case:
    kind: str
    defaults: dict
    groups: list
    shapes: dict
    kept: tuple
    changes: list = dataclasses.field(default_factory=list)
    dtypes: dict = dataclasses.field(default_factory=dict)
    sample: int = 0
    steps: int = 20
    absent: dict = dataclasses.field(default_factory=lambda: ABSENT)
    zero: dict = dataclasses.field(default_factory=lambda: ZERO)


def run(case, dtype):
    """Returns the tensors by their keys, the param_groups, and the names of each state."""
    dtypes = {name: getattr(torch, case.dtypes.get(name, str(dtype)[6:])) for name in case.shapes}
    params = {
        name: torch.nn.Parameter(generate.gradient(0, i, shape, dtypes[name]))
        for i, (name, shape) in enumerate(case.shapes.items())
    }
    names = {id(param): name for name, param in params.items()}
    optimizer = OWN.get(case.kind) or getattr(torch.optim, case.kind)
    optimizer = optimizer(
        [
            {
                **generate.with_tuples(group["options"]),
                "params": [params[name] for name in group["params"]],
            }
            for group in case.groups
        ],
        **generate.with_tuples(case.defaults),
    )
    param_groups = [
        {**generate.without_tensors(group), "params": [names[id(param)] for param in group["params"]]}
        for group in optimizer.param_groups
    ]
    tensors = {}

    def sampled(tensor):
        tensor = tensor.detach().clone()
        is_large = case.sample and tensor.numel() > SAMPLED_FROM
        return tensor.flatten()[:: case.sample] if is_large else tensor

    def keep(step):
        for name, param in params.items():
            prefix = f"{str(dtype)[6:]}/{step}/{name}/"
            tensors[prefix + "value"] = sampled(param)
            for state_name, value in optimizer.state.get(param, {}).items():
                tensors[prefix + state_name] = sampled(value)

    for step in range(1, case.steps + 1):
        for change in case.changes:
            if step == change["step"]:
                options = generate.with_tuples(change["options"])
                optimizer.param_groups[change["group"]].update(options)
        for i, (name, param) in enumerate(params.items()):
            if step in case.absent.get(name, []):
                param.grad = None
            elif step in case.zero.get(name, []):
                param.grad = torch.zeros_like(param)
            else:
                param.grad = generate.gradient(step, i, case.shapes[name], dtypes[name])
        optimizer.step()
        if step in case.kept:
            keep(step)
    states = {name: list(optimizer.state.get(param, {})) for name, param in params.items()}
    return tensors, param_groups, states


def write_case(folder, name, case):
    tensors = {}
    for dtype in (torch.float32, torch.float64):
        made, param_groups, states = run(case, dtype)
        tensors.update(made)
    text = dataclasses.asdict(case)
    text["defaults"] = generate.without_tensors(case.defaults)
    text["param_groups"] = param_groups
    text["states"] = states
    metadata = {"torch": torch.__version__.split("+")[0], "case": json.dumps(text)}
    generate.write_safetensors(os.path.join(folder, name + ".safetensors"), tensors, metadata)


def all_cases():
    cases = {}
    for name, (kind, defaults, second_options, changed) in CASES.items():
        shapes = SHAPES_OF[kind]
        groups = generate.make_groups(shapes, SECOND_GROUP, second_options)
        changes = [{"step": CHANGED_AT, "group": 0, "options": changed}]
        cases[name] = Case(kind, defaults, groups, shapes, (1, 10, 20), changes)
    for kind, shapes in SHAPES_OF.items():
        groups = [{"options": {}, "params": list(LARGE)}]
        # Products in bfloat16 take seconds.
        steps = 2 if kind == "Muon" else 20
        cases[f"{kind.lower()}_large"] = Case(
            kind, {}, groups, LARGE, (steps,), sample=SAMPLE, steps=steps
        )
    # One group with parameters of both dtypes: eps1 is that of the first one stepped.
    mixed = Case(
        "Adafactor",
        {"lr": 0.5},
        [{"options": {}, "params": list(SHAPES)}],
        SHAPES,
        (1, 2, 20),
        dtypes={"scalar": "float64", "one": "float32", "matrix": "float64", "cube": "float32"},
        absent={**ABSENT, "scalar": [2, 3]},
        # Zeros from the first step on: the smallest second moment shows.
        zero={"one": [1, 2, 3], "vector": [1, 2], "matrix": [1, 2], "cube": [2]},
    )
    cases["adafactor_mixed"] = mixed
    for info in optim_db:
        kind = info.optim_cls.__name__
        if kind not in ("Adafactor", "Muon"):
            continue
        groups = [{"options": {}, "params": list(SHAPES_OF[kind])}]
        for i, given in enumerate(info.optim_inputs_func(device="cpu")):
            name = f"{kind.lower()}_db_{i}"
            # Muon computes with a tensor lr in float32; here it is its value.
            options = generate.without_tensors(given.kwargs)
            cases[name] = Case(kind, options, groups, SHAPES_OF[kind], (1, 20))
    return cases


def main():
    folder = os.path.join(sys.argv[1], "coupled")
    if not torch.__version__.startswith("2.11.0"):
        sys.exit(f"torch: expected 2.11.0, got {torch.__version__}")
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        sys.exit("expected a CPU with AVX2 and FMA, or ATEN_CPU_CAPABILITY=avx2")
    torch.set_num_threads(1)
    os.makedirs(folder, exist_ok=True)
    cases = all_cases()
    for name, case in cases.items():
        write_case(folder, name, case)
    generate.write_json(os.path.join(sys.argv[1], "coupled.json"), list(cases))


if __name__ == "__main__":
    with IeeeRoots():
        main()
