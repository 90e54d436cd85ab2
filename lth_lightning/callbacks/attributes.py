"""What objects hold in attributes, and modules besides what their state dicts have."""

from typing import Any

import torch
from torch import Tensor, nn


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's own attributes, those in slots too."""
    found = dict(getattr(value, "__dict__", {}))
    for name in _slots(value):
        if hasattr(value, name):
            found[name] = getattr(value, name)
    return found


def _slots(value: Any) -> list[str]:
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return [name for name in names if name not in ("__dict__", "__weakref__")]


_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}


def module_attributes(module: nn.Module) -> dict[str, Any]:
    """What a module has besides parameters, modules, and the buffers that its `state_dict` holds: its mode, too."""
    found = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    for name in module._non_persistent_buffers_set:
        found[name] = module._buffers.get(name)
    return found


def look(holder: Any, name: str) -> Any:
    """An attribute of an object; None where it has none."""
    if isinstance(holder, nn.Module):
        for own in (holder._parameters, holder._buffers):
            if name in own:
                return own[name]
    return attributes_of(holder).get(name)


def put(holder: Any, name: str, value: Any) -> None:
    """Set an attribute of an object; a parameter or buffer in place, if it has that shape."""
    there = look(holder, name)
    if there is value:
        return
    if isinstance(holder, nn.Module) and (name in holder._parameters or name in holder._buffers):
        if isinstance(there, Tensor) and isinstance(value, Tensor) and there.shape == value.shape:
            with torch.no_grad():
                there.copy_(value)
        elif name in holder._buffers:
            holder._buffers[name] = value
    elif name in _slots(holder):
        object.__setattr__(holder, name, value)
    else:
        vars(holder)[name] = value


def type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
