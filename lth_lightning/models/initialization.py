"""The initialization of every network in the paper: Gaussian Glorot."""

from torch import nn


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
