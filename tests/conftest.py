import signal

import torch

from lth_lightning import files

torch.set_num_threads(1)

# Where the tests are started in the background of a script, Ctrl-C is ignored, and so it would be by the commands that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Waiting for a disk takes longer than the tiny runs of the tests themselves; test_files.py looks at the waits.
files._put_on_disk = lambda path: None
