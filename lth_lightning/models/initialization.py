"""The initializations of the paper: Gaussian Glorot of every network, and one Gaussian in a sweep."""

import math

from torch import nn

from lth_lightning.errors import UserError


def glorot_normal_(net: nn.Module) -> nn.Module:
    """Initialize `net` in place, in the order of `net.modules()`, and return it (LTH Fig. 2 and section 2).

    Weights of Linear and convolution layers: N(0, 2 / (fan_in + fan_out)). Their biases: 0. Batch norm:
    weight 1, bias 0. Draws come from torch's global generator, so equal seeds give bit-identical networks.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.affine:
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return net


def gaussian_(net: nn.Sequential, sd: float) -> None:
    """Initialize the weights of all Linear layers of `net` with N(0, sd^2), in place, biases with 0 (LTH app. G.5).

    Raises:
        UserError: an sd of 0 or below.
    """
    if not 0 < sd < math.inf:
        raise UserError(f"init_sd is {sd}: give a positive standard deviation, or none for Gaussian Glorot")
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=sd)
            nn.init.zeros_(module.bias)
