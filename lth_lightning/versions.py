"""The versions that results depend on."""

import platform

from lth_lightning import __version__


def versions() -> dict[str, str]:
    """Of this package, torch and Python."""
    import torch  # late: commands that read run folders do without

    # `str`: torch's version is a class of its own, which `torch.load(weights_only=True)` refuses.
    return {"lth_lightning": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
