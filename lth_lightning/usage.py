"""What `lth --help` says: shown without importing torch, which takes seconds."""

import textwrap

from lth_lightning.shipped import config_names

COMMANDS = {
    "fit": "run an experiment: tickets and their controls, level by level",
    "validate": "evaluate a level's trained weights on the validation set",
    "test": "evaluate a level's trained weights on the test set",
    "report": "figures, verdicts and one page on a run, or on several",
    "ls": "list the runs in a folder: how far each is, and its best ticket",
    "diff": "tell two runs apart: settings, machine, trainings, results",
}

READERS = ("report", "ls", "diff")
"""Commands that read run folders alone, and answer without importing torch."""

EXAMPLES = {
    "lth fit": "winning tickets on small images in a minute, nothing to download",
    "lth fit --config lenet": "the paper's LeNet-300-100 on MNIST",
    "lth fit --config paper/figure4": "a figure of the paper; configs/README.md lists all experiments",
    "lth fit --config lenet --dry-run": "what that would do, and how long it would take",
    "lth fit --sweep.data.normalization '[none,half]'": "a run for each value; any flags, in a config too",
    "lth fit --resume lightning_logs/lenet/version_0": "finish a run that was stopped, or extend one",
    "lth test --ckpt_path …/version_0/replicate_0/ticket/level_07": "look into a level",
    "lth ls": "all runs here, the latest last",
    "lth diff lightning_logs/lenet/version_0 lightning_logs/lenet/version_1": "what sets two runs apart",
    "lth report lightning_logs/lenet/version_0": "figures and verdicts: version_0/report/report.html",
    "lth fit --config lenet --print_config": "every setting and its value",
    "lth fit --help": "every option",
}


def usage() -> str:
    """The text of `lth --help`."""
    commands = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
    examples = "\n".join(f"  {words}\n      {what}" for words, what in EXAMPLES.items())
    configs = textwrap.fill(config_names(), 80, initial_indent="  ", subsequent_indent="  ")
    return (
        "usage: lth COMMAND [options]\n\n"
        "Find winning lottery tickets: train, prune, rewind, train again.\n\n"
        f"commands:\n{commands}\n\nexamples:\n{examples}\n\nconfigs:\n{configs}\n"
    )
