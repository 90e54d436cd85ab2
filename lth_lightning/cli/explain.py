"""What the parser says of a mistake, told by the flag or file that it is in and by what to write instead."""

import contextlib
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentParser

from lth_lightning.arguments import configs_of
from lth_lightning.cli.messages import did_you_mean, plain
from lth_lightning.words import yaml_error

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "Sequence": "a list",
    "Iterable": "a list",
    "tuple": "a list",
    "dict": "names and values",
}
"""Types, in plain words."""

EXAMPLES = {"pruning.rates": "'{linear: 0.2}'", "pruning.retrain.steps": "500"}

OTHERS = {"data.normalization": "'{mean: [0], std: [0.00392156862745098]}' for raw pixels of 0 to 255"}
"""Of options that also take what the parser does not name: an example."""

MORE = {"trainer.logger": pl.loggers, "trainer.callbacks": pl.callbacks}
"""Where Lightning's own classes for an option are."""

BASES = (pl.LightningModule, pl.LightningDataModule)


def explained(message: str, words: Sequence[str], parser: ArgumentParser) -> str:
    """The parser's `message` on `words` in one line; as `plain` tells it where it is of no known kind.

    Args:
        message: of the parser's error.
        words: of the command, its name first; configs in front.
        parser: of the command.
    """
    if found := re.search(r"does not accept option '([\w.+-]+)'", message):
        return _unknown_key(message, found[1], words, parser)
    if found := re.match(r"argument (-\S+): expected one argument", message):
        return f"{found[1]} lacks its value: see `lth {words[0]} --help`."
    if re.search(r"arguments are required: (\w+\.)?model\b", message):
        return (
            "There is no model: name --model and --data, or a whole config first, such as "
            f"{' '.join(['--config lenet', *(f'--config {file}' for file, _ in configs_of(words)[-1:])])}."
        )
    keys = list(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', message)))
    if not keys:
        return plain(message)
    key = ".".join(keys)
    value = _value(message)
    where, written = _where(key, value, words)
    value = written if isinstance(written, str) else value
    if value is not None and not value.strip():
        return f"{where} is empty (an unset shell variable?): give a value, or drop it."
    if value is not None and re.match(r"\s*[\[{*]", value) and (trouble := yaml_error(value)):
        if value.lstrip().startswith("*") and "a <class 'list'>" in message:
            return f"{where} takes a list, its names in quotes: write {_listed(value)}."
        return f"{where} is no YAML: {trouble}."
    told = _of_class(message, key, where) or _of_path(message, key, where) or _of_type(message, key, where, value)
    return told or plain(message)


def _listed(value: str) -> str:
    return f"""'["{value.strip()}"]'""" if value.lstrip().startswith("*") else f"'[{value.strip()}]'"


def _unknown_key(message: str, key: str, words: Sequence[str], parser: ArgumentParser) -> str:
    where, _ = _where(key, None, words)
    file = where.rpartition(": ")[0]
    if file and (told := plain(message)).startswith("A config has no"):
        return f"{file}: {told}"
    meant = re.search(r"did you mean --([\w.]+)\?", did_you_mean(f"--{key}", words[0], parser))
    place = f"{file}: there is no option '{key}'" if file else f"There is no option '{key}'"
    return f"{place}: {f'did you mean {meant[1]}?' if meant else f'see `lth {words[0]} --help`.'}"


def _value(message: str) -> str | None:
    """What was given, where the parser says so."""
    for pattern in (r"NestedArg\(key='[\w.]+', val='(.*?)'\)", r"Given value: (\S.*)", r"Got value: (.*)"):
        if (found := re.search(pattern, message)) and not found[1].startswith("Namespace("):
            return found[1]
    return "" if re.search(r"(Given|Got) value: *$", message) else None


def _where(key: str, value: str | None, words: Sequence[str]) -> tuple[str, Any]:
    """The flag, or the file and the name in it, that gives `key`, and what is written there."""
    asked = _short(key)
    flags: list[tuple[str, Any]] = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, given = word.partition("=")
        name = _short(name.removeprefix("--").rstrip("+")) if word.startswith("--") else ""
        if name and (name == asked or name.startswith(f"{asked}.") or asked.startswith(f"{name}.")):
            flags.append((word.partition("=")[0].rstrip("+"), given if equals else after))
    exact = [(flag, given) for flag, given in flags if _short(flag.removeprefix("--")) == asked]
    if exact and (value is None or value in (exact[-1][1], _parsed(exact[-1][1]))):
        return exact[-1]
    for file, content in reversed(configs_of(words)):
        for found in _within(content, asked):
            if value is None or str(found) in value or isinstance(found, dict | list):
                return f"{file}: {key}", found if isinstance(found, str) else None
    return (f"--{asked}", exact[-1][1]) if exact else (f"--{asked}", None)


def _parsed(text: str) -> str | None:
    with contextlib.suppress(yaml.YAMLError, ValueError):
        return str(yaml.safe_load(text))
    return None


def _within(content: Any, key: str) -> Iterator[Any]:
    for part in [part for part in (content, *_settings(content)) if isinstance(part, dict)]:
        for name, value in part.items():
            if name == key:
                yield value
            elif key.startswith(f"{name}."):
                yield from _within(value, key.removeprefix(f"{name}."))


def _settings(content: Any) -> list[Any]:
    return [content.get("init_args")] if isinstance(content, dict) else []


def _short(key: str) -> str:
    return key.replace(".init_args", "")


def _of_class(message: str, key: str, where: str) -> str | None:
    """On the settings of a class."""
    paths = re.findall(r"Problem with given class_path '(\S+)'|Namespace\(class_path='([\w.]+)'", message)
    path = next((inner for _, inner in reversed(paths) if inner), "") or (paths[-1][0] if paths else "")
    if nearest := re.search(r"are required: [\w., ]+\. Got value: Namespace\(class_path='([\w.]+)'", message):
        path = nearest[1]
    made: Any = _located(path)
    name, short = path.rpartition(".")[2], _short(key)
    if not path and (nested := re.search(r"NestedArg\(key='([\w.]+)'", message)):
        return _of_no_class(short, nested[1])
    if not callable(made):
        return None
    found = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", message)
    if found:
        option = found[1] or found[2]
        if made in BASES or inspect.isabstract(made):
            return _of_no_class(short, option)
        if option == "class_path":
            return None
        known = _options(made)[1 if "Callable[" in message else 0 :]  # the code gives the first: parameters, optimizer
        meant = difflib.get_close_matches(option.partition(".")[0], known, n=1, cutoff=0.6)
        if "optimizer" in known and option in inspect.signature(torch.optim.AdamW).parameters:
            meant = [f"optimizer.{option}"]
        guess = f"did you mean {meant[0]}? It" if meant else "it"
        file = where.rpartition(": ")[0]
        return f"{f'{file}: ' if file else ''}{name} has no option '{option}': {guess} takes {_and(known)}."
    if found := re.search(r"the following arguments are required: ([\w., ]+?)(?:\. Got value|\.?\n|\.?$)", message):
        asked = found[1].strip()
        names = [f"{short}.{one}" for one in re.split(r",\s*", asked)]
        flags = " ".join(f"--{one} {EXAMPLES.get(one, one.rpartition('.')[2].upper())}" for one in names)
        if where.startswith("--"):
            return f"{name} asks for {asked}: add {flags}."
        return f"{where}: {name} asks for {asked}: name it under init_args, or add {flags}."
    return None


def _located(path: str) -> Any:
    with contextlib.suppress(ErrorDuringImport):
        return locate(path)
    return None


def _of_no_class(short: str, option: str) -> str:
    instead = ", or by a config such as --config lenet" if short in ("model", "data") else ""
    return f"--{short}.{option} is a setting of no class: name the class before it, by --{short}{instead}."


def _options(made: Any) -> list[str]:
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(made) else parser.add_function_arguments
    return [name for name in add(made, fail_untyped=False, sub_configs=True) if "." not in name]


def _of_path(message: str, key: str, where: str) -> str | None:
    """On the import path of a class."""
    if found := re.search(r"Import path does not correspond to a subclass of (\w+)", message):
        path = _given_path(message)
        made: Any = _located(path)
        what = f"a {type(made).__name__}"
        if inspect.isclass(made):
            base = made.__mro__[1]
            what = "a class" if base is object else f"a subclass of {base.__name__}"
        return f"{where}: {path} is {what}, but a subclass of {found[1]} is asked for."
    if of_class := re.search(r"Problem with given class_path '(\S+)'", message):
        return _of_module(of_class[1], where)
    if (found := re.search(r"Expected a dot import path string: (\S+)", message)) and key in MORE:
        module = MORE[key]
        return f"{where}: there is no class '{found[1]}': {_meant(found[1], module.__all__)}"
    return None


def _of_module(path: str, where: str) -> str | None:
    """On the module of a user's class; what its code raises is raised again, with its traceback."""
    file, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(file)
    except ModuleNotFoundError as error:
        if error.name and f"{file}.".startswith(f"{error.name}."):
            folder = f"there is no {error.name.replace('.', '/')}.py in this folder ({Path.cwd()})"
            return f"{where} is {path}, but {folder}, nor a package {error.name} installed."
        return f"{where}: {file} imports {error.name}, which is not installed."
    except (ImportError, SyntaxError) as error:
        return f"{where}: {file} cannot be imported: {error}."
    if hasattr(module, name):
        return None
    known = [one for one, made in vars(module).items() if inspect.isclass(made) and made.__module__ == file]
    return f"{where}: there is no {name} in {file}: {_meant(name, known, f'{file}.')}"


def _given_path(message: str) -> str:
    found = re.search(r"Given value: .*?class_path[='\": ]+([\w.]+)|(?:Given|Got) value: ([\w.]+)", message)
    return (found[1] or found[2]) if found else ""


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known := list(known), n=1, cutoff=0.75)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"give one of {', '.join(sorted(known))}." if known else "it defines no class."


def _of_type(message: str, key: str, where: str, value: str | None) -> str | None:
    """On a value of another type."""
    is_class = "Expected a dot import path" in message and "Expected a <class" not in message
    if is_class or "class_path" in (value or ""):
        return None
    kinds = []
    for found in re.finditer(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.*?)\])", message):
        if found[2]:
            kinds += [part.strip(" '") for part in found[2].split(",")]
        elif found[1] != "NoneType":
            kinds.append(KINDS.get(found[1], f"a {found[1]}"))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    if not kinds or value is None:
        return None
    is_list = "a list" in kinds and len(set(kinds)) == 1
    example = f", such as {_listed(value)}" if is_list and re.fullmatch(r"[\w*.?]+", value.strip()) else ""
    example = example or (f", such as {EXAMPLES[key]}" if key in EXAMPLES and "names and values" in kinds else "")
    example = example or (f", or mean and std, such as {OTHERS[_short(key)]}" if _short(key) in OTHERS else "")
    return f"{where} takes {_and(dict.fromkeys(kinds), ' or ')}{example}, not '{value.strip()}'."


def _and(names: Iterable[str], last: str = " and ") -> str:
    *first, end = names
    return f"{', '.join(first)}{last}{end}" if first else end
