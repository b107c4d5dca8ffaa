"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A slow machine is no failure, and every run of the same code tries the same examples.
settings.register_profile(
    "aion", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aion")
