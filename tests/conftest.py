"""What holds for all tests."""

import signal

from hypothesis import HealthCheck, settings

# A shell in the background has its children ignore Ctrl-C, and theirs; some are sent one here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is no failure, and every run of the same code tries the same examples.
settings.register_profile(
    "aion", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aion")
