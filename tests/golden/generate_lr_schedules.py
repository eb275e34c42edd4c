"""Makes data/lr_schedules.txt with Python PyTorch: python3 generate_lr_schedules.py data/lr_schedules.txt

Needs torch 2.11.0. A line for each schedule: its name, and the rates of two groups at each of 60
epochs, the first one that of construction, as hexadecimal floats. Milestones and lengths are chosen
so that every branch of the recursive forms is passed. lr_schedule_test.cc has the same schedules
under the same names.
"""

import sys

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    SequentialLR,
    StepLR,
)

EPOCHS = 60
RATES = (0.05, 0.003)


def sequence(milestones, *parts):
    return lambda o: SequentialLR(o, [part(o) for part in parts], milestones)


SCHEDULES = {
    "step": lambda o: StepLR(o, 7),
    "step_gamma": lambda o: StepLR(o, 1, 0.97),
    "multi_step": lambda o: MultiStepLR(o, [30, 5, 11, 11]),
    "multi_step_at_once": lambda o: MultiStepLR(o, [0, 9], 0.3),
    "constant": lambda o: ConstantLR(o),
    "constant_long": lambda o: ConstantLR(o, 0.7, 13),
    "linear": lambda o: LinearLR(o),
    "linear_down": lambda o: LinearLR(o, 1.0, 0.1, 17),
    "linear_to_zero": lambda o: LinearLR(o, 0.25, 0.0, 9),
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "cosine": lambda o: CosineAnnealingLR(o, 11),
    "cosine_eta_min": lambda o: CosineAnnealingLR(o, 20, 1e-4),
    "cosine_one": lambda o: CosineAnnealingLR(o, 1),
    "warm_up_then_cosine": sequence(
        [8], lambda o: LinearLR(o, 0.01, 1.0, 8), lambda o: CosineAnnealingLR(o, 40, 1e-5)
    ),
    "constant_then_exponential": sequence(
        [20], lambda o: ConstantLR(o, 0.1, 20), lambda o: ExponentialLR(o, 0.9)
    ),
    "all": sequence(
        [3, 9, 15, 30, 40],
        lambda o: ExponentialLR(o, 1.3),
        lambda o: StepLR(o, 2, 0.5),
        lambda o: LinearLR(o, 0.2, 0.9, 4),
        lambda o: MultiStepLR(o, [0, 2, 4], 0.5),
        lambda o: ConstantLR(o, 0.6, 4),
        lambda o: CosineAnnealingLR(o, 6, 1e-3),
    ),
    "nothing_between": sequence(
        [6, 6], lambda o: StepLR(o, 2), lambda o: ExponentialLR(o, 0.5), lambda o: ConstantLR(o, 0.5, 0)
    ),
}


def main():
    assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
    with open(sys.argv[1], "w") as out:
        for name, make in SCHEDULES.items():
            groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in RATES]
            optimizer = torch.optim.SGD(groups)
            scheduler = make(optimizer)
            rates = []
            for epoch in range(EPOCHS):
                if epoch > 0:
                    optimizer.step()
                    scheduler.step()
                rates += [float(group["lr"]).hex() for group in optimizer.param_groups]
            print(name, *rates, file=out)


main()
