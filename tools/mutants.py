"""Changes one small thing at a time in a few files (a mutant) and sees whether a test notices: `make mutants`.

Which files, and by which tests, stands in pyproject.toml under tool.mutmut. Printed are the figures of each file; mutants
that no test noticed are kept as diffs, for a person to read: one that makes no difference (a faster way to the same, a
sentence in other words) is no fault, any other is a claim without a test.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTMUT = (sys.executable, "-m", "mutmut")
KEPT = ROOT / ".mutants"
LOG, SURVIVORS = KEPT / "mutmut.log", KEPT / "survivors.diff"
# What mutmut works in: a copy of the files with all their mutants. What it remembers of an earlier run is not taken over,
# because it does not see that a test has changed.
COPY = ROOT / "mutants"
COLUMNS = ("killed", "survived", "no tests", "timeout")


def statuses(results: str) -> dict[str, dict[str, str]]:
    """What became of each mutant, by file: of lines like `core.delivery.outbox.xǁOutboxǁoffer__mutmut_3: killed`."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for line in results.splitlines():
        mutant, colon, status = line.strip().partition(": ")
        if colon:
            module = mutant.rpartition(".")[0]
            found[module.replace(".", "/") + ".py"][mutant] = status
    return found


def table(found: dict[str, dict[str, str]]) -> str:
    """A line for each file; a mutant that the tests never came to an end with was noticed too."""
    lines = [f"{'':32}{'mutants':>10}" + "".join(f"{name:>10}" for name in COLUMNS)]
    for file, mutants in sorted(found.items()):
        count = Counter(mutants.values())
        others = {status: number for status, number in count.items() if status not in COLUMNS}
        row = f"{file:32}{len(mutants):>10}" + "".join(f"{count[name]:>10}" for name in COLUMNS)
        lines.append(row + "".join(f"   {number} {status}" for status, number in others.items()))
    return "\n".join(lines)


def ask(*words: str) -> str:
    """What mutmut answers."""
    return subprocess.run([*MUTMUT, *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> int:
    """Runs mutmut with these arguments more; 1 if it could not run."""
    shutil.rmtree(COPY, ignore_errors=True)
    KEPT.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        ended = subprocess.run([*MUTMUT, "run", *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if ended.returncode:
        print(f"mutmut could not run: see {LOG.relative_to(ROOT)}", file=sys.stderr)
        return 1
    found = statuses(ask("results", "--all", "true"))
    print(table(found))
    left = [
        name for mutants in found.values() for name, status in mutants.items() if status in ("survived", "no tests")
    ]
    SURVIVORS.write_text("\n".join(ask("show", name) for name in left), encoding="utf-8")
    print(f"who survived: {SURVIVORS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
