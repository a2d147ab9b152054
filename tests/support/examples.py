"""How many examples property tests try, how many orders and connections make a load, and at how many sizes the page is looked at:
all of them in `make check`, a part of them in `make unit`, `make test` and CI, for who waits. Which examples they are is different in
each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings

T = TypeVar("T")

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


def examples(count: int, least: int = 5) -> int:
    """So many, or the part of them that the profile in use (`--hypothesis-profile`) wants."""
    return max(count // PART, least) if settings.get_current_profile_name() == SOME else count


def load(count: int) -> int:
    """So many orders, connections or requests, or a part of them."""
    return count // PART if settings.get_current_profile_name() == SOME else count


def outermost(values: Sequence[T]) -> Sequence[T]:
    """All of them, which are in their order, or the first and the last where a part is enough."""
    return [values[0], values[-1]] if settings.get_current_profile_name() == SOME else values
