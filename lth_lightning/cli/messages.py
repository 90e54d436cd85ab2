"""What the parser and other packages say of a mistake, in a user's words."""

import difflib
import inspect
import re
import traceback
from pathlib import Path

import pytorch_lightning as pl
from jsonargparse import ArgumentParser

from lth_lightning.arguments import ALIASES
from lth_lightning.callbacks import Control, Retraining
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier
from lth_lightning.pruning import Criterion
from lth_lightning.shipped import config_folder


def own_error(error: BaseException) -> BaseException:
    """The first error behind `error` that the parser did not make; `error` itself where there is none."""
    behind: BaseException | None = error
    while behind is not None:
        frames = list(traceback.walk_tb(behind.__traceback__))
        if isinstance(behind, ModuleNotFoundError) and _is_of_lightning(behind):
            # Such as a logger's, which names the package.
            return UserError(f"A package is missing. {behind}")
        if isinstance(behind, UserError) or (frames and "jsonargparse" not in frames[-1][0].f_code.co_filename):
            return behind
        behind = behind.__cause__ or behind.__context__
    return error


def _is_of_lightning(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("pytorch_lightning.")


def did_you_mean(word: str, command: str, parser: ArgumentParser) -> str:
    """What to say of the option `word`, which `parser`, that of `command`, does not know."""
    name = word.partition("=")[0].lstrip("-")
    if not word.startswith("-"):
        known = (config_folder() / f"{word}.yaml").is_file() or Path(word).is_file()
        return f"'{word}' is no option: {f'did you mean --config {word}' if known else f'see lth {command} --help'}."
    known_options = [action.dest for action in parser._actions] + [alias.lstrip("-") for alias in ALIASES]
    first = name.partition(".")[0]
    found = [f"model.{name}"] if first in ("optimizer", "lr_scheduler") else []
    found += [option for option in known_options if option.endswith(f".{name}")]
    found += difflib.get_close_matches(name, known_options, n=1, cutoff=0.75)
    parts = {option.rpartition(".")[2]: option for option in known_options}
    found += [parts[part] for part in difflib.get_close_matches(name.rpartition(".")[2], parts, n=1, cutoff=0.75)]
    found += [option for option in known_options if option.startswith(name) and len(name) > 2]
    return f"There is no option --{name}: {f'did you mean --{found[0]}?' if found else f'see `lth {command} --help`.'}"


def plain(message: str) -> str:
    """The parser's message in a user's words, in one line: what it lists of types and values is left out."""
    message = re.sub(r" ?Given value: NestedArg\(.*", "", " ".join(message.split()))
    message = re.sub(r" ?Given value type: .*", "", message)
    message = re.sub(r"(Does not validate against any of the Union subtypes )?Subtypes: .*? Errors: ", "", message)
    message = re.sub(r" ?- Expected a (<class 'NoneType'>|path but \S+ either not accessible or invalid)", "", message)
    found = re.search(r"does not accept option '([\w.-]+)'", message)
    if found and "." in (long := ALIASES.get(f"--{found[1]}", "")):
        group, _, name = long.removeprefix("--").partition(".")
        return f"A config has no '{found[1]}' by itself: put '{name}' under '{group}'."
    message = message.replace("Option 'class_path' is not accepted", "settings beside class_path go under init_args")
    message = re.sub(r"Type \S*Callable\[.*\] expects a function or a callable class: ", "", message)
    message = re.sub(r"\.\. Got value: .*| ?Subclass types expect one of: .*", "", message)
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    message = re.sub(r": (- )+", ": ", message).replace("typing.Literal", "value of ")
    if found := re.search(r"Problem with given class_path '(\S+)': (.+)", message):
        return f"{found[1]}: {plain(found[2]).strip()}"
    found = re.search(r'Parser key "(?:\w+\.)*?(\w+)".*Expected a dot import path string: (\S+)', message)
    bases = {
        "model": pl.LightningModule,
        "data": pl.LightningDataModule,
        "score": Criterion,
        "controls": Control,
        "retrain": Retraining,
    }
    if found and found[1] in bases:
        ours = [kind for kind in _subclasses(bases[found[1]]) if kind.__module__.startswith("lth_lightning.")]
        whole = [kind for kind in ours if not inspect.isabstract(kind) and kind not in (Classifier, TensorDataModule)]
        known = ", ".join(sorted(kind.__name__ for kind in whole))
        return (
            f"There is no class '{found[2]}' for {found[1]}: give one of {known}, "
            "or the import path of your own, such as my_file.MyClass."
        )
    return re.sub(r"Expected a dot import path string: (\S+)", r"there is no class '\1'", message)


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    return direct.union(*(_subclasses(kind) for kind in direct))
