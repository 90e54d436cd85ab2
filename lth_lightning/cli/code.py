"""Which of the code that a config names is called: classes, and functions that say that they give what is asked for.

The parser checks that a class is of the type that a parameter has. It does not look at what a function gives where that
type is a callable, such as an optimizer's, and for a parameter without a type it makes any class at all. In both ways a
config could run a command, by `os.system` or `subprocess.Popen`.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pydoc import locate
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from lth_lightning.errors import UserError

set_parsing_settings(instantiate_subclass_spec_in_any=False)


def check_code(parser: ArgumentParser, config: Namespace, prefix: str = "") -> None:
    """Raise UserError naming the first class or function in `config` that must not be called; nothing is called.

    Args:
        parser: what has read the config.
        config: its namespace.
        prefix: the name of the object that `config` has the settings of, and a dot.
    """
    # Tried with jsonargparse 4.51 and 4.53, whose actions keep each parameter's type there.
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        value = config.get(action.dest)
        if kind is not None and value is not action.default and _names_code(value):
            _check(value, kind, prefix + action.dest)


def _check(value: Any, kind: Any, name: str) -> None:
    """`value` is what the config has for `name`, a parameter of the type `kind`."""
    if _is_spec(value):
        _check_spec(value, kind, name)
    elif inspect.isroutine(value) or (callable(value) and not isinstance(value, type)):
        # It is not called here but by the object that it is given to.
        results = [typing.get_args(part)[-1:] for part in _parts(kind) if _is_callable(part)]
        of_class = any(isinstance(part, type) and isinstance(value, part) for part in _parts(kind))
        if results and not of_class and not any(not result or _fits(_returned(value), *result) for result in results):
            raise _refused(name, getattr(value, "__qualname__", repr(value)), kind)
    else:
        for part in _inside(value):
            _check(part, kind, name)


def _check_spec(spec: Any, kind: Any, name: str) -> None:
    path, settings = spec["class_path"], spec.get("init_args")
    made: Any = locate(path)
    if all(part in (Any, object) or "Untyped" in str(part) for part in _parts(kind)):
        raise UserError(
            f"{name} has no type, so that no {path} is made for it: give the parameter its type in the code."
        )
    if not inspect.isclass(made) and not _fits(_returned(made), kind):
        raise _refused(name, path, kind)
    if _names_code(settings):
        parser = ArgumentParser(exit_on_error=False)
        add = parser.add_class_arguments if inspect.isclass(made) else parser.add_function_arguments
        add(made, fail_untyped=False)
        check_code(parser, settings, f"{name}.init_args.")


def _refused(name: str, path: str, kind: Any) -> UserError:
    results = [
        result for part in _parts(kind) for result in (typing.get_args(part)[-1:] if _is_callable(part) else [part])
    ]
    asked = [part for result in results for part in _parts(result)] or ["a function"]
    names = " or ".join(dict.fromkeys(getattr(part, "__name__", str(part)) for part in asked))
    return UserError(
        f"{name} is {path}, a function that does not say that it gives what is asked for ({names}), so that it is not "
        "called: name a class, or annotate what your function returns."
    )


def _is_spec(value: Any) -> bool:
    return isinstance(value, Namespace | dict) and isinstance(value.get("class_path"), str)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Namespace | dict):
        return value.values() if isinstance(value, dict) else vars(value).values()
    return value if isinstance(value, list | tuple | set) else ()


def _names_code(value: Any) -> bool:
    return _is_spec(value) or any(map(_names_code, _inside(value))) or (callable(value) and not isinstance(value, type))


def _parts(kind: Any) -> Iterator[Any]:
    """The types that a union, an optional one or a container stands for; None is not one of them."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union or _is_container(kind):
        for part in typing.get_args(kind):
            yield from _parts(part)
    elif kind not in (type(None), ...):
        yield kind


def _is_container(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Iterable) and not _is_callable(kind)


def _is_callable(kind: Any) -> bool:
    return kind in (Callable, typing.Callable) or typing.get_origin(kind) is Callable


def _returned(function: Any) -> Any:
    """The type that a function, or an object that can be called, says that it gives; None where it says nothing."""
    try:
        target = function if inspect.isroutine(function) else type(function).__call__
        return typing.get_type_hints(target).get("return")
    except Exception:  # a name in an annotation that is not there at run time, for one
        return None


def _fits(returned: Any, kind: Any) -> bool:
    """Whether all that is `returned` is of the type `kind`."""
    wanted = list(_parts(kind))
    if any(part is Any or isinstance(part, typing.TypeVar) for part in wanted):
        return True
    given = list(_parts(returned))  # none of a function that returns None
    return bool(given) and all(any(_is(part, other) for other in wanted) for part in given)


def _is(returned: Any, wanted: Any) -> bool:
    if _is_callable(wanted):
        if not _is_callable(returned):
            return False
        given, asked = (typing.get_args(kind)[-1:] or (Any,) for kind in (returned, wanted))
        return _fits(*given, *asked)
    returned, wanted = (typing.get_origin(kind) or kind for kind in (returned, wanted))
    if wanted is float and returned is int:
        return True
    return isinstance(returned, type) and isinstance(wanted, type) and issubclass(returned, wanted)
