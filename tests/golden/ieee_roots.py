"""PyTorch with IEEE's square roots, as fleets with portable numerics take them.

torch.sqrt is MKL's. Its bits depend on the CPU and on who made it, also in MKL's branch for every CPU
(MKL_CBWR=COMPATIBLE): that starts from rsqrtps, an estimate that makers tabulate differently. All else
that PyTorch's optimizers do is the same on every CPU with AVX2 and FMA.
"""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def root(value):
    # C's sqrt, which is IEEE's; from a double it is right for float32, too.
    return math.sqrt(value) if value >= 0 else math.nan


class IeeeRoots(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func not in (aten.sqrt.default, aten.sqrt_.default):
            assert "::sqrt" not in func.name(), func
            return func(*args, **(kwargs or {}))
        (values,) = args
        roots = [root(value) for value in values.flatten().tolist()]
        roots = torch.tensor(roots, dtype=values.dtype).reshape(values.shape)
        return values.copy_(roots) if func is aten.sqrt_.default else roots
