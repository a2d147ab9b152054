"""How many examples property tests try: a part of them in `make unit`, all of them where everything is tested."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

PART = 5
# A busy machine is no defect: how long an example takes is nowhere the claim.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ALL = "all"
settings.register_profile(ALL, _UNHURRIED)
settings.register_profile("part", _UNHURRIED, max_examples=_UNHURRIED.max_examples // PART)


def examples(count: int) -> int:
    """So many, or the part of them that the profile in use (`--hypothesis-profile`) wants."""
    return count if settings.get_current_profile_name() == ALL else max(count // PART, 5)
