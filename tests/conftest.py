"""What holds for every test: how hypothesis looks for examples on a machine that may be busy."""

import os

from hypothesis import HealthCheck, settings

# No deadline: a machine with two busy cores says nothing about an example. `deep` is for a night.
settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", parent=settings.get_profile("usual"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))
