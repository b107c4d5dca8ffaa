"""On a child's path, this has its wall clock begin at $CLOCK_AT, in Unix seconds.

What a month looks like depends on the day it begins, and a test's outcome must not.
"""

import os
import time  # noqa: TID251 - it is what is changed here

if at := os.environ.get("CLOCK_AT"):
    began, steady = float(at), time.monotonic
    zero = steady()
    time.time = lambda: began + steady() - zero
    time.time_ns = lambda: int(time.time() * 1e9)
