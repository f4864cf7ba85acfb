"""``python -m benchmarks NAME [options]``: one benchmark; ``NAME --help`` lists its options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import augmentation, cohort, denormals, folds, honesty, prepare, quality, race, totals

BENCHMARKS: Final[dict[str, Callable[[Sequence[str]], None]]] = {
    "augmentation": augmentation.main,
    "cohort": cohort.main,
    "denormals": denormals.main,
    "folds": folds.main,
    "honesty": honesty.main,
    "prepare": prepare.main,
    "race": race.main,
    "quality": quality.main,
    "totals": totals.main,
}


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(f"error: name a benchmark: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    name, *rest = arguments
    if name not in BENCHMARKS:
        print(f"error: no benchmark is named {name!r}; choose one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    BENCHMARKS[name](rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
