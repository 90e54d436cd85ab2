"""The commands that read run folders: `lth report`, `lth ls` and `lth diff`."""

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lth_lightning.errors import UserError
from lth_lightning.words import check_empty


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without a dump of the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[0].upper()}{message[1:]}: see `{self.prog} --help`.")


def main(words: Sequence[str]) -> int:
    """Run one of the commands and return its exit code: 0, 2 for what is wrong or damaged, 130 for Ctrl-C."""
    try:
        return _run(words)
    except UserError as error:
        print(f"lth: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `lth ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as other commands end there: 128 + SIGPIPE
    except OSError as error:  # a folder that may not be read, a run that is removed meanwhile, a full disk
        print(f"lth: {error.filename or 'A file'} cannot be read or written ({error.strerror}).", file=sys.stderr)
        return 2


def _run(words: Sequence[str]) -> int:
    parser = _Parser(prog="lth", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    report_words = commands.add_parser(
        "report",
        allow_abbrev=False,
        description="Figures, verdicts on the paper's claims, and one page to look at, of one or several runs.",
    )
    report_words.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder (…/version_N), an experiment's or a sweep's"
    )
    report_words.add_argument("--out", type=Path, help="where to write; by default report/ in the folder of the runs")
    report_words.add_argument(
        "--densities", type=_densities, default=(), help="of curves and distributions, in percent, such as 100,21.1,3.6"
    )
    report_words.add_argument(
        "--steps", type=_steps, default=(), help="at which accuracies are compared, such as 10000,20000,30000"
    )
    listing_words = commands.add_parser(
        "ls",
        allow_abbrev=False,
        description="List the runs in a folder, the one written last at the end: how far each is, and its best ticket.",
    )
    listing_words.add_argument("folder", nargs="?", type=Path, default=Path("lightning_logs"), help="lightning_logs")
    difference_words = commands.add_parser(
        "diff", allow_abbrev=False, description="Tell two runs apart: their settings, machines, trainings and results."
    )
    difference_words.add_argument("first", type=Path, metavar="RUN")
    difference_words.add_argument("second", type=Path, metavar="RUN")
    check_empty(words)
    chosen, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(_unknown(unknown[0], commands.choices[chosen.command]))

    from lth_lightning.report.terminal import console  # late, for `--help`

    if chosen.command == "ls":
        from lth_lightning.report import listing

        return listing.show(chosen.folder, console())
    if chosen.command == "report":
        from lth_lightning.report import screen
        from lth_lightning.report.figure import Choice

        return screen.show(chosen.runs, chosen.out, Choice(chosen.densities, chosen.steps), console())
    from lth_lightning.report import difference

    return difference.show(chosen.first, chosen.second, console())


def _unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """What to say of a word that a command does not know."""
    if not word.startswith("-"):
        return f"'{word}' is one argument too many: see `{parser.prog} --help`."
    name = word.partition("=")[0]
    options = [option for action in parser._actions for option in action.option_strings]
    meant = [option for option in options if option.startswith(name)]
    meant += difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    guess = f"did you mean {meant[0]}? See" if meant else "see"
    return f"There is no option {name}: {guess} `{parser.prog} --help`."


def _densities(text: str) -> tuple[float, ...]:
    with contextlib.suppress(ValueError):
        values = tuple(float(part) / 100 for part in text.split(","))
        if all(0 < value <= 1 for value in values):
            return values
    raise argparse.ArgumentTypeError(f"'{text}' are no percentages above 0, at most 100")


def _steps(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        values = tuple(int(part) for part in text.split(","))
        if min(values) >= 1:
            return values
    raise argparse.ArgumentTypeError(f"'{text}' are no steps: give whole numbers such as 10000,20000")
