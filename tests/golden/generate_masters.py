"""Makes data/masters.safetensors with Python PyTorch: python3 generate_masters.py data/masters.safetensors

Needs torch 2.11.0 and safetensors. What a fleet does with parameters declared bfloat16 or float16, by
PyTorch's own optimizers, with IEEE's square roots (ieee_roots.py), on float32 masters: the gradients
come in the declared dtype and are widened, a pull is the master rounded to it. Keys, by dtype and optimizer:

    <dtype>/initial/<parameter>                        in the declared dtype, as all but the states is
    <dtype>/gradient/<step>/<parameter>
    <dtype>/<optimizer>/<step>/<parameter>/pulled      after these steps: KEPT
    <dtype>/<optimizer>/<step>/<parameter>/<state>     "master" among them; float32

"full" is declared float32. masters_golden_test.cc has the optimizers under the same names.
"""

import sys

import safetensors.torch
import torch
from ieee_roots import IeeeRoots

STEPS = 20
KEPT = (1, 2, 10, 20)
SHAPES = {"rows": (7, 5), "odd": (3,), "scalar": (), "empty": (0, 3), "full": (4, 3)}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, foreach=False),
}


def declared(name, dtype):
    return torch.float32 if name == "full" else dtype


def draw(seed, name, dtype):
    """Numbers of many sizes, small enough for float16 and down to its denormals."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(SHAPES[name], generator=random)
    scales = torch.randint(-20, 2, SHAPES[name], generator=random)
    return torch.ldexp(values, scales).to(declared(name, dtype))


def run(make, dtype, prefix):
    masters = {name: torch.nn.Parameter(draw(i, name, dtype).float()) for i, name in enumerate(SHAPES)}
    optimizer = make(list(masters.values()))
    tensors = {}
    for step in range(1, STEPS + 1):
        for i, (name, master) in enumerate(masters.items()):
            master.grad = draw(1000 * step + i, name, dtype).float()
        optimizer.step()
        if step not in KEPT:
            continue
        for name, master in masters.items():
            key = f"{prefix}/{step}/{name}/"
            tensors[key + "pulled"] = master.detach().to(declared(name, dtype), copy=True)
            if name != "full":
                tensors[key + "master"] = master.detach().clone()
            for state, value in optimizer.state[master].items():
                if value is not None:
                    tensors[key + state] = value.clone()
    return tensors


def main():
    assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
    torch.set_num_threads(1)
    tensors = {}
    for dtype in (torch.bfloat16, torch.float16):
        code = str(dtype)[6:]
        for i, name in enumerate(SHAPES):
            tensors[f"{code}/initial/{name}"] = draw(i, name, dtype)
            for step in range(1, STEPS + 1):
                tensors[f"{code}/gradient/{step}/{name}"] = draw(1000 * step + i, name, dtype)
        for kind, make in OPTIMIZERS.items():
            tensors.update(run(make, dtype, f"{code}/{kind}"))
    safetensors.torch.save_file(tensors, sys.argv[1], {"torch": torch.__version__.split("+")[0]})


with IeeeRoots():
    main()
