import signal

import torch

torch.set_num_threads(1)

# Where the tests are started in the background of a script, Ctrl-C is ignored, and so it would be by the commands that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
