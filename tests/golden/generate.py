"""Makes the golden files beside it with Python PyTorch: python3 generate.py data

Needs torch 2.11.0 on a CPU with AVX2 and FMA. Runs with MKL's portable branch and one thread, every
optimizer with foreach=False, so that every such machine makes the same files.

<case>.safetensors holds 100 steps of one optimizer, in float32 and in float64. Tensors:
    <dtype>/<step>/<parameter>/value and <dtype>/<step>/<parameter>/<state name>
at steps 0 (before any step), 1, 2, 10 and 100; a state that does not exist has no key. Metadata:
"torch" is PyTorch's version, "case" a JSON object:
    kind, defaults   the optimizer and the constructor's arguments
    groups           the groups given to the constructor: options and params (names)
    param_groups     state_dict()["param_groups"], params by name
    shapes           of the parameters, in order
    absent, zero     the steps at which a parameter has no gradient, or zeros
    added_at         the step before which the second group is added; absent: it is the constructor's
All other numbers come from draw() below. fingerprint.json holds the numeric fingerprint, clip.json
norms and clip coefficients computed from exact sums.
"""

import fractions
import json
import math
import os
import struct
import sys

os.environ["MKL_CBWR"] = "COMPATIBLE"  # before MKL looks

import torch  # noqa: E402

STEPS = 100
KEPT_STEPS = (1, 2, 10, 100)
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


def with_tuples(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def make_groups(second_options):
    return [
        {"options": {}, "params": [name for name in SHAPES if name not in SECOND_GROUP]},
        {"options": second_options, "params": SECOND_GROUP},
    ]


def run(kind, defaults, groups, dtype, added_at=0):
    """Returns the tensors by their keys, and the final param_groups."""
    params = {
        name: torch.nn.Parameter(gradient(0, i, shape, dtype))
        for i, (name, shape) in enumerate(SHAPES.items())
    }
    made_groups = [
        {**with_tuples(g["options"]), "params": [params[name] for name in g["params"]]}
        for g in groups
    ]
    optimizer = getattr(torch.optim, kind)(
        made_groups[:1] if added_at else made_groups,
        foreach=False,
        **with_tuples(defaults),
    )
    tensors = {}

    def keep(step):
        for name, param in params.items():
            prefix = f"{str(dtype)[6:]}/{step}/{name}/"
            tensors[prefix + "value"] = param.detach().clone()
            for state_name, value in optimizer.state.get(param, {}).items():
                if value is not None:
                    tensors[prefix + state_name] = value.clone()

    keep(0)
    for step in range(1, STEPS + 1):
        if step == added_at:
            optimizer.add_param_group(made_groups[1])
        for i, (name, param) in enumerate(params.items()):
            if step in ABSENT.get(name, []):
                param.grad = None
            elif step in ZERO.get(name, []):
                param.grad = torch.zeros_like(param)
            else:
                param.grad = gradient(step, i, SHAPES[name], dtype)
        optimizer.step()
        if step in KEPT_STEPS:
            keep(step)

    names = {id(param): name for name, param in params.items()}
    param_groups = [
        {**group, "params": [names[id(param)] for param in group["params"]]}
        for group in optimizer.param_groups
    ]
    return tensors, param_groups


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


def write_case(folder, name, added_at=0):
    kind, defaults, second_options = (ADDED_CASES if added_at else CASES)[name]
    groups = make_groups(second_options)
    tensors = {}
    for dtype in (torch.float32, torch.float64):
        made, param_groups = run(kind, defaults, groups, dtype, added_at)
        tensors.update(made)
    case = {
        "kind": kind,
        "defaults": {**defaults, "foreach": False},
        "groups": groups,
        "param_groups": param_groups,
        "shapes": SHAPES,
        "absent": ABSENT,
        "zero": ZERO,
    }
    if added_at:
        case["added_at"] = added_at
    metadata = {"torch": torch.__version__.split("+")[0], "case": json.dumps(case)}
    write_safetensors(os.path.join(folder, name + ".safetensors"), tensors, metadata)


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
    os.makedirs(folder, exist_ok=True)
    for name in CASES:
        write_case(folder, name)
    for name in ADDED_CASES:
        write_case(folder, name, ADDED_AT)
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
    main()
