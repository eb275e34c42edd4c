"""Makes the golden files beside it with Python PyTorch: python3 generate.py data

Needs torch 2.11.0 and expecttest (which PyTorch's own tables of optimizers import) on a CPU with AVX2
and FMA. Runs with IEEE's square roots (ieee_roots.py) and one thread, every optimizer with
foreach=False, so that every such machine makes the same files.

<case>.safetensors holds the steps of one optimizer, in float32 and in float64. Tensors:
    <dtype>/<step>/<parameter>/value and <dtype>/<step>/<parameter>/<state name>
at step 0 (before any step) and at the kept ones; a state that does not exist has no key. Metadata:
"torch" is PyTorch's version, "case" a JSON object:
    kind, defaults   the optimizer and the constructor's arguments
    groups           the groups given to the constructor: options and params (names)
    param_groups     state_dict()["param_groups"] as constructed (and added to), params by name
    states           by parameter: the names of its state at the end, in PyTorch's order
    shapes           of the parameters, in order
    steps, kept      how many there are, and after which ones the tensors are kept
    absent, zero     the steps at which a parameter has no gradient, or zeros
    changes          options set before a step: step, group, options
    added_at         the step before which the second group is added; absent: it is the constructor's
All other numbers come from draw() below. cases.json lists the cases whose second group is the
constructor's; those of optim_db/ are what PyTorch's own tests run each optimizer with. options.json
says of many options whether a constructor takes them, or what it says. fingerprint.json holds the
numeric fingerprint, clip.json norms and clip coefficients computed from exact sums.
"""

import dataclasses
import fractions
import json
import math
import os
import re
import struct
import sys

import torch
from ieee_roots import IeeeRoots
from torch.testing._internal.common_optimizers import optim_db

SHAPES = {
    "scalar": [],
    "one": [1],
    "empty": [0, 3],
    "matrix": [7, 13],
    "cube": [3, 5, 2],
    "late": [3, 21],
}
SECOND_GROUP = ["cube", "one"]
ABSENT = {"late": [1, 2, 3, 4, 5, 6], "cube": [3, 4, 50], "scalar": [2]}
ZERO = {"cube": [5], "matrix": [10], "one": [1]}

# The cases of 20 steps: fewer elements, a first gradient at step 7, none at step 11.
SMALL_SHAPES = {"scalar": [], "one": [1], "empty": [0, 3], "matrix": [5, 7], "late": [2, 9]}
SMALL_SECOND_GROUP = ["matrix", "one"]
SMALL_ABSENT = {"late": [1, 2, 3, 4, 5, 6, 11], "scalar": [2]}
SMALL_ZERO = {"matrix": [4], "one": [1]}
CHANGED_AT = 10

# name: (class, the constructor's arguments, the second group's own options)
CASES = {
    "sgd": ("SGD", {"lr": 0.1}, {"lr": 0.01}),
    "sgd_momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}, {"momentum": 0}),
    "sgd_dampening": ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.5}, {"dampening": 0.1}),
    "sgd_nesterov": (
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"nesterov": False, "weight_decay": 0.01},
    ),
    "sgd_weight_decay": ("SGD", {"lr": 0.01, "weight_decay": 0.5}, {"weight_decay": 0}),
    "sgd_maximize": (
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "maximize": True},
        {"maximize": False},
    ),
    "adam": ("Adam", {}, {"lr": 0.01}),
    "adam_weight_decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1}, {"betas": [0.5, 0.7]}),
    "adam_amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}, {"amsgrad": False, "eps": 0.1}),
    "adam_maximize": (
        "Adam",
        {"lr": 0.01, "weight_decay": 0.1, "maximize": True, "betas": [0.8, 0.99]},
        {"maximize": False, "decoupled_weight_decay": True},
    ),
    "adamw": ("AdamW", {}, {"weight_decay": 0.3, "lr": 0.1}),
    "adamw_amsgrad": (
        "AdamW",
        {"lr": 0.02, "amsgrad": True, "maximize": True},
        {"weight_decay": 0.0, "initial_lr": 0.02},
    ),
}

# The same, with the second group added by add_param_group before step ADDED_AT.
ADDED_AT = 5
ADDED_CASES = {
    "sgd_added": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, {"weight_decay": 0.01}),
    "adam_added": ("Adam", {"lr": 0.01, "weight_decay": 0.1}, {"betas": [0.5, 0.7]}),
    "adamw_added": ("AdamW", {"lr": 0.02, "amsgrad": True}, {"weight_decay": 0.0}),
}

# Of 20 steps. Learning rates are large, so that the last bits of an update are not lost when it is
# added. name: (class, the constructor's arguments, the second group's own options, what is set
# in the first group before step CHANGED_AT)
SMALL_CASES = {
    "sgd_changed": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}, {"momentum": 0.5}),
    "adam_changed": ("Adam", {"lr": 0.5}, {"amsgrad": True}, {"betas": [0.5, 0.9]}),
    "adamw_changed": ("AdamW", {"lr": 0.5}, {"maximize": True}, {"weight_decay": 0.3}),
    "adagrad": (
        "Adagrad",
        {"lr": 1.0, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
        {"weight_decay": 0.1, "maximize": True, "eps": 1e-3},
        {"lr": 0.5},
    ),
    "rmsprop": (
        "RMSprop",
        {"lr": 0.5, "momentum": 0.9, "centered": True},
        {"momentum": 0, "centered": False, "weight_decay": 0.1},
        {"alpha": 0.9},
    ),
    "adadelta": (
        "Adadelta",
        {"rho": 0.95, "weight_decay": 0.1},
        {"lr": 0.5, "eps": 1e-3, "maximize": True},
        {"rho": 0.8},
    ),
    "nadam": (
        "NAdam",
        {"lr": 1.0, "weight_decay": 0.1},
        {"decoupled_weight_decay": True, "betas": [0.8, 0.99], "maximize": True},
        {"momentum_decay": 0.02},
    ),
    # With these betas each of RAdam's two x**0.5 differs from the square root in a step.
    "radam": (
        "RAdam",
        {"lr": 8.0, "weight_decay": 0.1, "betas": [0.9, 0.99425]},
        {"decoupled_weight_decay": True, "betas": [0.8, 0.792675]},
        {"weight_decay": 0, "eps": 1e-4},
    ),
    "adamax": (
        "Adamax",
        {"lr": 1.0, "betas": [0.8, 0.9]},
        {"weight_decay": 0.1, "maximize": True, "eps": 1e-2},
        {"lr": 0.5},
    ),
    "rprop": (
        "Rprop",
        {"lr": 0.02, "step_sizes": [0.015, 0.03]},
        {"etas": [0.4, 1.3], "maximize": True},
        {"lr": 5.0, "etas": [0.7, 1.5]},
    ),
    "asgd": (
        "ASGD",
        {"lr": 0.5, "lambd": 0.1},
        {"weight_decay": 0.1, "t0": 3},
        {"lr": 1.0, "alpha": 0.5},
    ),
    "asgd_t0": ("ASGD", {"lr": 0.5, "t0": 5}, {"maximize": True}, {"lambd": 0.01}),
}

# The classes whose cases in optim_db are run here; and those whose options are tried.
KINDS = (
    "SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop",
    "ASGD",
)  # fmt: skip

# Those whose constructors are asked about options besides (their cases: coupled.py).
COUPLED_KINDS = ("Adafactor", "Muon")
OPTION_KINDS = KINDS + COUPLED_KINDS + ("SparseAdam",)
# Looked at in a step only.
LATE_OPTIONS = {"ns_coefficients", "ns_steps"}

CLIP_ELEMENTS = 5003
CLIP_MAX_NORMS = [0.25, 1.0, 1e6, 1e7]


def generator(seed):
    """64-bit states of Knuth's MMIX linear congruential generator."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state


def draw(seed, count, dtype):
    """`count` numbers in [-1, 1), exact in `dtype`, from the upper 24 or 53 bits of each state."""
    bits = 24 if dtype == torch.float32 else 53
    half = 2 ** (bits - 1)
    states = generator(seed)
    values = [((next(states) >> (64 - bits)) - half) / half for _ in range(count)]
    return torch.tensor(values, dtype=dtype)


def gradient(step, index, shape, dtype):
    """The gradient of parameter `index` at `step`; at step 0 the parameter's first value."""
    return draw(1000 * step + index, math.prod(shape), dtype).reshape(shape)


@dataclasses.dataclass
class Case:
    kind: str
    defaults: dict
    groups: list
    steps: int = 100
    kept: tuple = (1, 2, 10, 100)
    shapes: dict = dataclasses.field(default_factory=lambda: SHAPES)
    absent: dict = dataclasses.field(default_factory=lambda: ABSENT)
    zero: dict = dataclasses.field(default_factory=lambda: ZERO)
    changes: list = dataclasses.field(default_factory=list)
    added_at: int = 0


def small_case(kind, defaults, groups, kept, changes=()):
    return Case(
        kind, defaults, groups, 20, kept, SMALL_SHAPES, SMALL_ABSENT, SMALL_ZERO, list(changes)
    )


def with_tuples(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def without_tensors(options):
    return {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def make_groups(shapes, second_group, second_options):
    return [
        {"options": {}, "params": [name for name in shapes if name not in second_group]},
        {"options": second_options, "params": second_group},
    ]


def run(case, dtype):
    """Returns the tensors by their keys, the param_groups, and the names of each state."""
    params = {
        name: torch.nn.Parameter(gradient(0, i, shape, dtype))
        for i, (name, shape) in enumerate(case.shapes.items())
    }
    names = {id(param): name for name, param in params.items()}
    made_groups = [
        {**with_tuples(g["options"]), "params": [params[name] for name in g["params"]]}
        for g in case.groups
    ]
    optimizer = getattr(torch.optim, case.kind)(
        made_groups[:1] if case.added_at else made_groups,
        foreach=False,
        **with_tuples(case.defaults),
    )
    tensors = {}

    def keep(step):
        for name, param in params.items():
            prefix = f"{str(dtype)[6:]}/{step}/{name}/"
            tensors[prefix + "value"] = param.detach().clone()
            for state_name, value in optimizer.state.get(param, {}).items():
                if value is not None:
                    tensors[prefix + state_name] = value.clone()

    def groups_now():
        return [
            {**without_tensors(group), "params": [names[id(param)] for param in group["params"]]}
            for group in optimizer.param_groups
        ]

    keep(0)
    param_groups = groups_now()
    for step in range(1, case.steps + 1):
        if step == case.added_at:
            optimizer.add_param_group(made_groups[1])
            param_groups = groups_now()
        for change in case.changes:
            if step == change["step"]:
                optimizer.param_groups[change["group"]].update(with_tuples(change["options"]))
        for i, (name, param) in enumerate(params.items()):
            if step in case.absent.get(name, []):
                param.grad = None
            elif step in case.zero.get(name, []):
                param.grad = torch.zeros_like(param)
            else:
                param.grad = gradient(step, i, case.shapes[name], dtype)
        optimizer.step()
        if step in case.kept:
            keep(step)
    states = {
        name: [state for state, value in optimizer.state.get(param, {}).items() if value is not None]
        for name, param in params.items()
    }
    return tensors, param_groups, states


def write_safetensors(path, tensors, metadata):
    header = {"__metadata__": metadata}
    data = b""
    for key, tensor in tensors.items():
        code, size = ("F32", 4) if tensor.dtype == torch.float32 else ("F64", 8)
        values = tensor.flatten().tolist()
        start = len(data)
        data += struct.pack(f"<{len(values)}{'f' if size == 4 else 'd'}", *values)
        header[key] = {
            "dtype": code,
            "shape": list(tensor.shape),
            "data_offsets": [start, len(data)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def write_case(folder, name, case):
    tensors = {}
    for dtype in (torch.float32, torch.float64):
        made, param_groups, states = run(case, dtype)
        tensors.update(made)
    text = dataclasses.asdict(case)
    text["defaults"] = {**without_tensors(case.defaults), "foreach": False}
    text["param_groups"] = param_groups
    text["states"] = states
    if not case.added_at:
        del text["added_at"]
    metadata = {"torch": torch.__version__.split("+")[0], "case": json.dumps(text)}
    write_safetensors(os.path.join(folder, name + ".safetensors"), tensors, metadata)


def all_cases():
    """By name. PyTorch's own give the constructor's arguments alone."""
    cases = {}
    for name, (kind, defaults, second_options) in {**CASES, **ADDED_CASES}.items():
        groups = make_groups(SHAPES, SECOND_GROUP, second_options)
        cases[name] = Case(kind, defaults, groups)
        if name in ADDED_CASES:
            cases[name].added_at = ADDED_AT
    for name, (kind, defaults, second_options, changed) in SMALL_CASES.items():
        groups = make_groups(SMALL_SHAPES, SMALL_SECOND_GROUP, second_options)
        change = {"step": CHANGED_AT, "group": 0, "options": changed}
        cases[name] = small_case(kind, defaults, groups, (1, 7, 11, 20), [change])
    for info in optim_db:
        kind = info.optim_cls.__name__
        if kind not in KINDS:
            continue
        group = {"options": {}, "params": list(SMALL_SHAPES)}
        for i, given in enumerate(info.optim_inputs_func(device="cpu")):
            cases[f"optim_db/{kind.lower()}_{i}"] = small_case(kind, given.kwargs, [group], (1, 20))
    return cases


def what_it_says(optimizer_class, options):
    """None if the constructor takes the options; else the error's text."""
    try:
        optimizer_class([torch.nn.Parameter(torch.ones(1, 1))], **options)
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return None


def option_cases():
    """Options of every kind, and what the constructor says to them. JSON has no NaN: floats are
    {"float": text}."""

    def to_json(value):
        if isinstance(value, float):
            return {"float": repr(value)}
        return [to_json(item) for item in value] if isinstance(value, tuple) else value

    result = []

    def add(optimizer_class, options, pattern=None):
        said = what_it_says(optimizer_class, options)
        assert pattern is None or re.search(pattern, said), (options, pattern, said)
        result.append(
            {
                "kind": optimizer_class.__name__,
                "options": {name: to_json(value) for name, value in options.items()},
                "error": said,
            }
        )

    for info in optim_db:
        made = info.optim_cls
        if made.__name__ not in OPTION_KINDS:
            continue
        for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            given = error.optimizer_error_input
            values = [x for v in given.kwargs.values() for x in (v if isinstance(v, tuple) else [v])]
            if given.params is None and not any(isinstance(x, torch.Tensor) for x in values):
                add(made, given.kwargs, error.error_regex)
        defaults = made([torch.nn.Parameter(torch.ones(1, 1))]).defaults
        defaults = {name: v for name, v in defaults.items() if name not in LATE_OPTIONS}
        for name, value in defaults.items():
            if isinstance(value, tuple):
                for pair in ((-0.5, 1.5), (0.0, 1.5), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5)):
                    add(made, {name: pair})
                add(made, {name: (math.nan, 1.5)})
                add(made, {name: (0.5, math.nan)})
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                for number in (-0.5, -1, math.nan, math.inf, 0, 0.0, 1.0, 1.5, True):
                    add(made, {name: number})
        for flags in ({"nesterov": True}, {"fused": True}, {"foo": 1}, {"maximize": True}):
            add(made, flags)
        add(made, {"fused": True, "differentiable": True})
        add(made, {"fused": True, "foreach": True})
        # Which one is told where everything is wrong.
        wrong = {
            name: (2.0, 0.5) if isinstance(value, tuple) else -0.5
            for name, value in defaults.items()
            if isinstance(value, tuple) or type(value) in (int, float)
        }
        while wrong:
            add(made, wrong)
            said = result[-1]["error"]
            if said is None:
                break
            # Not told again: the option that was told is left out.
            told = {
                "learning rate": "lr",
                "Learning rate": "lr",
                "epsilon value": "eps",
                "epsilon1": "eps",
                "eta values": "etas",
                "Clipping threshold d": "d",
                "weight decay": "weight_decay",
            }
            what = re.match(r"(?:Invalid )?(.*?)(?: at index \d|(?= should))?(?:: | should be )", said)
            name = told.get(what[1], what[1].removesuffix(" value"))
            del wrong["betas" if name == "beta parameter" else name]
    return result


def to_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def clip_elements(dtype):
    """Numbers of magnitudes from 2^-20 to 2^19."""
    values = draw(77, CLIP_ELEMENTS, dtype).tolist()
    return [math.ldexp(value, i % 40 - 20) for i, value in enumerate(values)]


def clip_results(dtype):
    total = sum(fractions.Fraction(value) ** 2 for value in clip_elements(dtype))
    norm = math.sqrt(float(total))
    rounded = (lambda x: x) if dtype == torch.float64 else to_float32
    norm = rounded(norm)
    # Dividing or adding float32 numbers in double and rounding once more gives float32's own result.
    coefficients = [
        min(1.0, rounded(rounded(max_norm) / rounded(norm + rounded(1e-6))))
        for max_norm in CLIP_MAX_NORMS
    ]
    return {
        "norm": norm.hex(),
        "coefficients": [
            {"max_norm": max_norm, "coefficient": coefficient.hex()}
            for max_norm, coefficient in zip(CLIP_MAX_NORMS, coefficients)
        ],
    }


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def probe(seed, dtype):
    """The inputs of the numeric fingerprint (optim/numeric_fingerprint.cc)."""
    states = generator(seed)
    values = [math.ldexp(1 + (next(states) >> 41) / 2**23, i % 16 - 11) for i in range(4099)]
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def fingerprint():
    data = b""
    for dtype, code in ((torch.float32, "f"), (torch.float64, "d")):
        a, b, c = (probe(seed, dtype) for seed in (1, 2, 3))
        for result in (
            torch.sqrt(a),
            torch.div(a, b),
            torch.lerp(a, b, 0.1),
            torch.addcmul(a, b, c, value=-0.001),
            torch.addcdiv(a, b, c, value=-0.001),
        ):
            data += struct.pack(f"<{len(result)}{code}", *result.tolist())
    return crc32c(data)


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def main():
    folder = sys.argv[1]
    if not torch.__version__.startswith("2.11.0"):
        sys.exit(f"torch: expected 2.11.0, got {torch.__version__}")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        sys.exit("expected a CPU with AVX2 and FMA")
    torch.set_num_threads(1)
    os.makedirs(os.path.join(folder, "optim_db"), exist_ok=True)
    cases = all_cases()
    for name, case in cases.items():
        write_case(folder, name, case)
    write_json(
        os.path.join(folder, "cases.json"), [name for name in cases if not cases[name].added_at]
    )
    with open(os.path.join(folder, "options.json"), "w") as file:
        lines = ",\n".join(json.dumps(option_case) for option_case in option_cases())
        file.write(f"[\n{lines}\n]\n")
    write_json(os.path.join(folder, "fingerprint.json"), {"fingerprint": fingerprint()})
    write_json(
        os.path.join(folder, "clip.json"),
        {
            "elements": CLIP_ELEMENTS,
            "float32": clip_results(torch.float32),
            "float64": clip_results(torch.float64),
        },
    )


if __name__ == "__main__":
    with IeeeRoots():
        main()
