"""The interchange with Python, with real PyTorch, safetensors and NumPy: run.sh.

    interop.py SHARDCTL TRAINER DOCUMENT

Runs the examples of DOCUMENT as they stand there. Prints one line for each check; an assertion that
fails ends it.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

SERVERS = 3
STEPS = 3
KINDS = {
    "AdamW": (torch.optim.AdamW, [{"lr": 1e-3, "weight_decay": 0.02}, {"lr": 5e-3, "betas": (0.8, 0.99)}]),
    "Adam": (torch.optim.Adam, [{"lr": 2e-3, "amsgrad": True}, {"lr": 1e-2, "weight_decay": 0.1}]),
    "SGD": (torch.optim.SGD, [{"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.05}]),
    "Adagrad": (torch.optim.Adagrad, [{"lr": 0.1, "lr_decay": 0.1}, {"weight_decay": 0.1}]),
    "RMSprop": (torch.optim.RMSprop, [{"momentum": 0.9, "centered": True}, {"lr": 0.05}]),
    "Adadelta": (torch.optim.Adadelta, [{"rho": 0.8}, {"lr": 0.5}]),
    "NAdam": (torch.optim.NAdam, [{"lr": 0.01}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]),
    "RAdam": (torch.optim.RAdam, [{"lr": 0.01}, {"betas": (0.9, 0.9)}]),
    "Adamax": (torch.optim.Adamax, [{"lr": 0.01}, {"weight_decay": 0.1}]),
    "Rprop": (torch.optim.Rprop, [{"lr": 0.01}, {"etas": (0.4, 1.5), "step_sizes": (1e-5, 10.0)}]),
    "ASGD": (torch.optim.ASGD, [{"lr": 0.1, "t0": 1.0}, {"lambd": 0.1}]),
    "SparseAdam": (torch.optim.SparseAdam, [{"lr": 0.01}, {"betas": (0.8, 0.99)}]),
    "Adafactor": (torch.optim.Adafactor, [{"lr": 0.05}, {"weight_decay": 0.1, "d": 2.0}]),
    "Muon": (torch.optim.Muon, [{"lr": 0.01}, {"adjust_lr_fn": "match_rms_adamw"}]),
}
# Sums are exact on a fleet and of float32 in Python (docs/optimizers.md).
NEAR = {"Adafactor": 2.0**-18, "Muon": 2.0**-18}

HALVES = (torch.bfloat16, torch.float16)

shardctl, trainer, document = (pathlib.Path(path).resolve() for path in sys.argv[1:])
work = pathlib.Path()
checks = 0


def check(what, holds):
    global checks
    assert holds, what
    checks += 1
    print(f"interop: {what}", flush=True)


def load_examples():
    """The document's Python, as functions."""
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text(), re.M | re.S):
        exec(block, names)
    return names["read_checkpoint"], names["write_state_dict"]


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def control(*words):
    return json.loads(run(shardctl, *words, "--fleet", work / "fleet" / "fleet.json", "--json"))


def bytes_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_bits(a, b):
    """Whether two dictionaries hold the same tensors."""
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
        and bytes_of(a[key]) == bytes_of(b[key]) for key in a)


def equal(kind, a, b):
    """The same bits, or numbers as near as they are for this kind of optimizer."""
    if kind not in NEAR:
        return same_bits(a, b)
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
        and (a[key] - b[key]).abs().max() <= NEAR[kind] * b[key].abs().max() for key in a)


def model_of(kind):
    """Muon takes matrices alone."""
    return "matrices" if kind == "Muon" else "layers"


def make_model(kind="AdamW"):
    torch.manual_seed(20)
    bias = model_of(kind) == "layers"
    return torch.nn.Sequential(torch.nn.Linear(17, 13, bias), torch.nn.ReLU(), torch.nn.Linear(13, 5, bias))


def make_optimizer(model, kind):
    make, options = KINDS[kind]
    first, last = model[0], model[2]
    foreach = {} if kind in ("SparseAdam", "Muon") else {"foreach": False}
    return make([{"params": list(first.parameters()), **options[0]},
                 {"params": list(last.parameters()), **options[1]}], **foreach)


def gradients(model, step):
    """Of all parameters but one, which has none in step 0."""
    random = torch.Generator().manual_seed(step)
    return {name: torch.randn(value.shape, generator=random)
            for name, value in model.named_parameters() if step > 0 or name != "2.bias"}


def step_here(model, optimizer, step, came_in=torch.float32):
    given = gradients(model, step)
    for name, value in model.named_parameters():
        value.grad = given[name].to(came_in).to(value.dtype) if name in given else None
        if value.grad is not None and isinstance(optimizer, torch.optim.SparseAdam):
            value.grad = value.grad.to_sparse(1)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step_there(name, kind, steps, *more, dtype=torch.float32):
    """Makes the optimizer where it is missing, and steps it on the fleet."""
    run(trainer, "--fleet", work / "fleet" / "fleet.json", "--name", name, "--kind", kind,
        "--parameters", work / f"initial-{model_of(kind)}-{dtype}", "--groups", work / f"{kind}.groups", *more,
        *(word for step in steps for word in ("--gradients", work / f"gradients-{step}-{model_of(kind)}-{dtype}")))


def state_there(name, *flags):
    path = work / f"{name}.safetensors"
    control("state-dict", name, "--out", path, *flags)
    return safetensors.torch.load_file(path)


def state_here(model, optimizer):
    names = {id(value): name for name, value in model.named_parameters()}
    tensors = {"model." + name: value.detach() for name, value in model.named_parameters()}
    for value, entries in optimizer.state.items():
        for entry, state in entries.items():
            if state is not None:
                tensors[f"optim.state.{names[id(value)]}.{entry}"] = torch.as_tensor(state)
    return tensors


def write_inputs():
    for kind in KINDS:
        model = make_model(kind)
        for dtype in (torch.float32, *HALVES):
            def save(tensors, name):
                safetensors.torch.save_file({key: value.to(dtype) for key, value in tensors.items()},
                                            work / f"{name}-{model_of(kind)}-{dtype}")
            save(model.state_dict(), "initial")
            for step in range(STEPS + 1):
                save(gradients(model, step), f"gradients-{step}")
        names = {id(value): name for name, value in model.named_parameters()}
        groups = [dict(group, params=[names[id(value)] for value in group["params"]])
                  for group in make_optimizer(model, kind).param_groups]
        (work / f"{kind}.groups").write_text(json.dumps(groups))


def reassemble(directory):
    """The tensors of a checkpoint, put together with NumPy from what each file's header says."""
    chunks = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safetensors.safe_open(path, "numpy") as file:
            sharding = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            assert sorted(sharding) == sorted(file.keys()), path
        for key, value in safetensors.numpy.load_file(path).items():
            chunks.setdefault(key, []).append((sharding[key]["saved_offsets"], value))
    tensors = {}
    for key, parts in chunks.items():
        ends = [[offset + size for offset, size in zip(offsets, value.shape)] for offsets, value in parts]
        whole = numpy.empty(numpy.max(ends, axis=0).astype(int), parts[0][1].dtype)
        for (offsets, value), end in zip(parts, ends):
            whole[tuple(slice(*ends) for ends in zip(offsets, end))] = value
        tensors[key] = torch.from_numpy(whole)
    return tensors


def fill_sparse_adam(tensors, directory, model, optimizer):
    """What read_checkpoint cannot do, since it steps with whole gradients."""
    model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    numbers = {id(value): i for i, value in enumerate(
        value for group in optimizer.param_groups for value in group["params"])}
    numbers = {name: numbers[id(value)] for name, value in model.named_parameters()}
    state = {}
    for key, value in tensors.items():
        if key.startswith("optim.state."):
            name, entry = key[12:].rsplit(".", 1)
            state.setdefault(numbers[name], {})[entry] = value.item() if entry == "step" else value
    groups = [dict(group, params=[numbers[name] for name in group["params"]])
              for group in json.loads((directory / "manifest.json").read_text())["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def from_fleet_to_python(kind, read_checkpoint):
    name = f"from-fleet-{kind}"
    step_there(name, kind, range(STEPS))
    made = control("checkpoint", name, "--id", "middle")
    directory = work / "fleet" / "checkpoints" / name / "middle"
    stored = reassemble(directory)
    files = len(list(directory.glob("*.safetensors")))
    check(f"{kind}: safetensors opens all {files} files, and NumPy puts the fleet's state_dict together",
          files > (0 if kind == "Muon" else SERVERS) and made["version"] == STEPS and same_bits(stored, state_there(name)))
    pulled = state_there(name, "--parameters-only")
    check(f"{kind}: the parameters are those pulled",
          same_bits({key[6:]: value for key, value in stored.items() if key.startswith("model.")}, pulled))

    model = make_model(kind)
    for value in model.parameters():
        torch.nn.init.zeros_(value)
    optimizer = make_optimizer(model, kind)
    if kind == "SparseAdam":
        fill_sparse_adam(stored, directory, model, optimizer)
    else:
        read_checkpoint(str(directory), model, optimizer)
    check(f"{kind}: a checkpoint fills a model and its optimizer",
          same_bits(state_here(model, optimizer), stored))
    step_here(model, optimizer, STEPS)
    step_there(name, kind, [STEPS])
    check(f"{kind}: Python's next step is the fleet's",
          equal(kind, state_here(model, optimizer), state_there(name)))


def from_python_to_fleet(kind, write_state_dict):
    name = f"from-python-{kind}"
    model = make_model(kind)
    optimizer = make_optimizer(model, kind)
    for step in range(STEPS):
        step_here(model, optimizer, step)
    # What the definition does not say. A tensor is loaded as its value.
    optimizer.param_groups[1]["lr"] = torch.tensor(0.125) if kind == "SGD" else 0.125
    path = work / f"{name}.python"
    write_state_dict(model, optimizer, str(path))
    load = ("--load", path, "--load-groups", f"{path}.groups.json")
    step_there(name, kind, [], *load)
    check(f"{kind}: LoadStateDict takes what Python wrote",
          same_bits(state_here(model, optimizer), state_there(name)))
    step_here(model, optimizer, STEPS)
    step_there(name, kind, [STEPS])
    check(f"{kind}: the fleet's next step is Python's",
          equal(kind, state_here(model, optimizer), state_there(name)))


def with_masters(tensors, dtype):
    """What a fleet has where Python steps float32 masters."""
    there = {}
    for key, value in tensors.items():
        if key.startswith("model."):
            there[f"optim.state.{key[6:]}.master"] = value
            value = value.to(dtype)
        there[key] = value
    return there


def in_halves(dtype, kind, read_checkpoint, write_state_dict):
    name = f"{dtype}-{kind}"[6:]
    masters = make_model().to(dtype).float()
    optimizer = make_optimizer(masters, kind)
    for step in range(STEPS):
        step_here(masters, optimizer, step, came_in=dtype)
    step_there(name, kind, range(STEPS), dtype=dtype)
    middle = state_there(name)
    check(f"{name}: parameters are Python's float32 masters rounded, masters and state are Python's",
          same_bits(with_masters(state_here(masters, optimizer), dtype), middle))

    control("checkpoint", name, "--id", "middle")
    directory = work / "fleet" / "checkpoints" / name / "middle"
    model = make_model().to(dtype)
    half = make_optimizer(model, kind)
    read_checkpoint(str(directory), model, half)
    rounded = {key: value if key.endswith(".step") else value.to(dtype)
               for key, value in middle.items() if not key.endswith(".master")}
    check(f"{name}: a checkpoint fills a {dtype} model and its optimizer, which casts its state",
          same_bits(state_here(model, half), rounded))

    step_there(name, kind, [], "--load", work / f"{name}.safetensors", dtype=dtype)
    check(f"{name}: the fleet's own file comes back to the bit", same_bits(state_there(name), middle))
    step_here(masters, optimizer, STEPS, came_in=dtype)
    step_there(name, kind, [STEPS], dtype=dtype)
    check(f"{name}: and goes on as Python's masters do",
          same_bits(with_masters(state_here(masters, optimizer), dtype), state_there(name)))

    step_here(model, half, STEPS)
    path = work / f"{name}.python"
    write_state_dict(model, half, str(path))
    step_there(name, kind, [], "--load", path, "--load-groups", f"{path}.groups.json", dtype=dtype)
    widened = {key: value.float() for key, value in state_here(model, half).items()}
    check(f"{name}: LoadStateDict widens what Python trained in {dtype}",
          same_bits(with_masters(widened, dtype), state_there(name)))


def main():
    global work
    read_checkpoint, write_state_dict = load_examples()
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        write_inputs()
        run(shardctl, "fleet", "up", "--servers", SERVERS, "--dir", work / "fleet", "--name", "interop",
            "--numerics", "native", "--detach")
        try:
            for kind in KINDS:
                from_fleet_to_python(kind, read_checkpoint)
                from_python_to_fleet(kind, write_state_dict)
            for dtype in HALVES:
                for kind in ("AdamW", "SGD", "RMSprop"):
                    in_halves(dtype, kind, read_checkpoint, write_state_dict)
        finally:
            run(shardctl, "fleet", "down", "--fleet", work / "fleet" / "fleet.json")
    print(f"interop: ok {checks} checks")


main()
