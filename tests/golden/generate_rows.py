"""Makes the golden files of gradients that consist of rows, beside it: python3 generate_rows.py data/rows

As generate.py, whose needs and files these have: <case>.safetensors and cases.json. A parameter's
gradient is not draw()n whole: draw_rows() gives the numbers of rows, which may repeat, and draw()
the rows. PyTorch gets them summed by number, in the order given: its own coalesce() sums three and
more in an order that depends on the machine. A parameter of one dimension is a column for PyTorch:
else its rounding of lr * gradient depends on whether the gradient is marked as coalesced, as those
of a single row always are. In the cases named line_... it is of one dimension for PyTorch, too;
their rates are powers of 2, so that lr * gradient is not rounded (SparseAdam multiplies before it
adds, whatever its rate). A sparse momentum_buffer is kept as a dense tensor, with zeros, and
SparseAdam's integer step as a float.
"""

import os
import sys

from generate import CHANGED_AT, Case, draw, gradient, make_groups, with_tuples, without_tensors
from generate import dataclasses, generator, json, math, optim_db, torch
from generate import write_json, write_safetensors
from ieee_roots import IeeeRoots

SHAPES = {"table": [11, 6], "vector": [9], "cube": [5, 3, 2], "tall": [40, 1], "late": [4, 7]}
SECOND_GROUP = ["cube", "vector"]
ABSENT = {"late": [1, 2, 3, 4, 5, 6, 11], "tall": [2]}

# name: as generate.py's SMALL_CASES
CASES = {
    "sparse_adam": (
        "SparseAdam",
        {"lr": 0.5},
        {"betas": [0.5, 0.7], "eps": 1e-3, "maximize": True},
        {"lr": 0.1, "betas": [0.8, 0.99]},
    ),
    "sgd": ("SGD", {"lr": 0.1}, {"maximize": True}, {"lr": 0.05}),
    "sgd_momentum": (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
        {"dampening": 0, "nesterov": True, "maximize": True},
        {"momentum": 0.5},
    ),
    "adagrad": (
        "Adagrad",
        {"lr": 1.0, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
        {"eps": 1e-3, "maximize": True},
        {"lr": 0.5},
    ),
}

# Of one dimension for PyTorch, too.
LINE_SHAPES = {"long": [40], "line": [9], "one": [1], "short": [3], "late": [7]}
LINE_SECOND_GROUP = ["one", "line"]
LINE_ABSENT = {"late": [1, 2, 3, 4, 5, 6, 11], "long": [2]}
LINE_CASES = {
    "line_sparse_adam": CASES["sparse_adam"],
    "line_sgd": ("SGD", {"lr": 0.5}, {"maximize": True}, {"lr": 0.25}),
    "line_sgd_momentum": (
        "SGD",
        {"lr": 0.5, "momentum": 0.9, "dampening": 0.3},
        {"dampening": 0, "nesterov": True, "maximize": True},
        {"momentum": 0.5},
    ),
    "line_adagrad": (
        "Adagrad",
        {"lr": 1.0, "initial_accumulator_value": 0.1},
        {"eps": 1e-3, "maximize": True},
        {"lr": 0.5},
    ),
}


@dataclasses.dataclass
class RowCase(Case):
    columns: bool = True  # a parameter of one dimension is a column for PyTorch

    def torch_shape(self, shape):
        return shape + [1] if self.columns and len(shape) == 1 else shape


def draw_rows(step, index, rows):
    """The numbers of a gradient's rows, of a parameter that has `rows`: none, or more than there
    are, among others."""
    states = generator(10**6 + 1000 * step + index)
    count = (next(states) >> 33) % (rows + 3)
    return [(next(states) >> 33) % rows for _ in range(count)]


def sparse_gradient(step, index, shape, torch_shape, dtype):
    numbers = draw_rows(step, index, shape[0])
    size = [len(numbers)] + shape[1:]
    values = draw(1000 * step + index, math.prod(size), dtype).reshape(size)
    sums = {}
    for number, value in zip(numbers, values):
        sums[number] = sums[number] + value if number in sums else value
    rows = sorted(sums)
    summed = torch.stack([sums[row] for row in rows]) if rows else values
    summed = summed.reshape([len(rows)] + torch_shape[1:])
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), summed, torch_shape)


def dense(value):
    if not isinstance(value, torch.Tensor):
        return torch.tensor(float(value))
    return value.coalesce().to_dense() if value.is_sparse else value.clone()


def given_options(case):
    """What all groups are constructed with."""
    foreach = {} if case.kind == "SparseAdam" else {"foreach": False}
    return {**foreach, **without_tensors(case.defaults)}


def run(case, dtype):
    params = {
        name: torch.nn.Parameter(gradient(0, i, case.torch_shape(shape), dtype))
        for i, (name, shape) in enumerate(case.shapes.items())
    }
    names = {id(param): name for name, param in params.items()}
    optimizer = getattr(torch.optim, case.kind)(
        [
            {**with_tuples(g["options"]), "params": [params[name] for name in g["params"]]}
            for g in case.groups
        ],
        **with_tuples(given_options(case)),
    )
    tensors = {}

    def keep(step):
        for name, param in params.items():
            prefix = f"{str(dtype)[6:]}/{step}/{name}/"
            shape = case.shapes[name]
            tensors[prefix + "value"] = param.detach().clone().reshape(shape)
            for state, value in optimizer.state.get(param, {}).items():
                if value is not None:
                    kept = dense(value)
                    tensors[prefix + state] = kept.reshape(shape) if kept.dim() > 0 else kept

    keep(0)
    param_groups = [
        {**without_tensors(group), "params": [names[id(param)] for param in group["params"]]}
        for group in optimizer.param_groups
    ]
    for step in range(1, case.steps + 1):
        for change in case.changes:
            if step == change["step"]:
                optimizer.param_groups[change["group"]].update(with_tuples(change["options"]))
        for i, (name, param) in enumerate(params.items()):
            if step in case.absent.get(name, []):
                param.grad = None
                continue
            shape = case.shapes[name]
            param.grad = sparse_gradient(step, i, shape, case.torch_shape(shape), dtype)
        optimizer.step()
        if step in case.kept:
            keep(step)
    states = {
        name: [state for state, value in optimizer.state.get(param, {}).items() if value is not None]
        for name, param in params.items()
    }
    return tensors, param_groups, states


def row_case(kind, defaults, groups, changes=(), shapes=SHAPES, absent=ABSENT, columns=True):
    kept = (1, 7, 10, 20)
    return RowCase(
        kind, defaults, groups, 20, kept, shapes, absent, {}, list(changes), columns=columns
    )


def all_cases():
    cases = {}
    for name, (kind, defaults, second_options, changed) in CASES.items():
        change = {"step": CHANGED_AT, "group": 0, "options": changed}
        cases[name] = row_case(
            kind, defaults, make_groups(SHAPES, SECOND_GROUP, second_options), [change]
        )
    for name, (kind, defaults, second_options, changed) in LINE_CASES.items():
        change = {"step": CHANGED_AT, "group": 0, "options": changed}
        groups = make_groups(LINE_SHAPES, LINE_SECOND_GROUP, second_options)
        cases[name] = row_case(
            kind, defaults, groups, [change], LINE_SHAPES, LINE_ABSENT, columns=False
        )
    for info in optim_db:
        if info.optim_cls.__name__ != "SparseAdam":
            continue
        group = {"options": {}, "params": list(SHAPES)}
        for i, given in enumerate(info.optim_inputs_func(device="cpu")):
            # A tensor lr becomes a number, as for the fleet: PyTorch would compute with it in float32.
            options = without_tensors(given.kwargs)
            cases[f"optim_db_sparse_adam_{i}"] = row_case("SparseAdam", options, [group])
    return cases


def main():
    folder = sys.argv[1]
    torch.set_num_threads(1)
    os.makedirs(folder, exist_ok=True)
    cases = all_cases()
    for name, case in cases.items():
        tensors = {}
        for dtype in (torch.float32, torch.float64):
            made, param_groups, states = run(case, dtype)
            tensors.update(made)
        text = dataclasses.asdict(case)
        text["defaults"] = given_options(case)
        text["param_groups"] = param_groups
        text["states"] = states
        del text["added_at"], text["columns"]
        metadata = {"torch": torch.__version__.split("+")[0], "case": json.dumps(text)}
        write_safetensors(os.path.join(folder, name + ".safetensors"), tensors, metadata)
    write_json(os.path.join(folder, "cases.json"), list(cases))


if __name__ == "__main__":
    with IeeeRoots():
        main()
