"""How many examples property tests try, and how many orders and connections make a load: all of them in CI, a part of them in
`make unit` and `make test`, for who waits.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

PART = 5
# A busy machine is no defect: how long an example takes is nowhere the claim.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ALL = "all"
settings.register_profile(ALL, _UNHURRIED)
SOME = "part"
settings.register_profile(SOME, _UNHURRIED, max_examples=_UNHURRIED.max_examples // PART)
# For `make mutants`: the same examples in each run, and none made smaller that nobody reads.
settings.register_profile(
    "mutants", _UNHURRIED, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)


def examples(count: int) -> int:
    """So many, or the part of them that the profile in use (`--hypothesis-profile`) wants."""
    return max(count // PART, 5) if settings.get_current_profile_name() == SOME else count
