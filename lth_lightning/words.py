"""Words of a command line, and texts of YAML, that cannot be meant: what is wrong with them, in a user's words."""

import re
from collections.abc import Sequence

import yaml

from lth_lightning.errors import UserError

OF_CLASSES = ("--model.", "--data.", "--trainer.logger.", "--trainer.callbacks.")
"""Options of classes, which may ask for a text that is empty; the parser says where they do not."""

_STAR = re.compile(r"""(?<![\w"'*])\*[^\s,\]}:"']*""")


def check_empty(words: Sequence[str]) -> None:
    """Raise UserError for an option or argument that is empty, such as a variable of the shell that is not set."""
    option = None
    for word in words:
        name, equals, value = word.partition("=")
        if not word and option is None:
            raise UserError('An argument is empty (""; an unset shell variable?): give a name, or drop it.')
        found = option if not word else name if equals and not value and name.startswith("-") else None
        if found and not found.startswith(OF_CLASSES):
            raise UserError(f"{found} is empty (an unset shell variable?): give a value, or drop it.")
        option = word if word.startswith("-") and not equals else None


def yaml_error(text: str) -> str | None:
    """Why `text` is no YAML, and what to write; None where it is YAML."""
    try:
        yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        told = " ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        line = f" in line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        if "alias" in told or "'*'" in told:
            quoted = _STAR.sub(r'"\g<0>"', text.splitlines()[mark.line] if mark else text).strip()
            return f"a name that begins with * needs quotes{line}: write '{quoted}'"
        for kind, opening, closing in (("sequence", "[", "]"), ("mapping", "{", "}")):
            if f"flow {kind}" in told and text.count(opening) > text.count(closing):
                where = (
                    f" of the {opening} in line {error.context_mark.line + 1}" if line and error.context_mark else ""
                )
                return f"the closing {closing}{where} is missing"
        if "quoted scalar" in told:
            return f"a closing quote is missing{line}"
        return f"{told}{line}"
    except (yaml.YAMLError, ValueError) as error:
        return " ".join(re.sub(r'in "<[\w ]+>", ', "at ", str(error)).split())
    return None
