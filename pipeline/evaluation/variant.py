"""A cheaper variant of a registered model before the gates that the model itself had to pass.

The variant was made without the sealed test, and the test chooses nothing here: there is one variant, and it is taken
or refused. Every reading is on the ledger, as those of finalists are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.config import Gate
from pipeline.data.identity import KnownRows
from pipeline.data.sealed import SealedTest
from pipeline.data.slicing import Slicing
from pipeline.evaluation.champion import Champion, Model
from pipeline.evaluation.finalists import Evaluation, evaluate
from pipeline.evaluation.gates import GateResult, judge
from pipeline.evaluation.intervals import Comparison, Interval, Resampling
from pipeline.objective import Objective
from pipeline.records import TrialRecord


class VariantReading(BaseModel):
    """What the sealed test says of a variant and its original."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    n_rows: int
    original: dict[str, Interval]
    variant: dict[str, Interval]
    difference: Comparison | None
    """Variant minus original, paired; positive where the variant is better. None where the metric is undefined."""
    gates: tuple[GateResult, ...]
    """First that it keeps what the original promised, then those of the experiment."""

    @property
    def refused(self) -> tuple[GateResult, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)


def read_variant(
    record: TrialRecord,
    variant: Model,
    original: Model,
    version: int,
    sealed: SealedTest,
    objective: Objective,
    gates: Sequence[Gate],
    *,
    former: Champion | None,
    trained_on: KnownRows | None,
    slicing: Slicing,
    how: Resampling,
    reason: str,
    ledger: Path,
    n_bytes: int,
) -> VariantReading:
    """Read the sealed test for both and judge the variant.

    Args:
        record: of the trial that both are.
        version: the original's, in the registry.
        former: the champion that the original had to beat; the gate `beats: champion` asks the variant for the same,
            in a reading of its own. None where there was none.
        trained_on: the rows that the trial was trained and chosen on.
        n_bytes: of the variant.
    """
    columns = [gate.slice for gate in gates if gate.slice is not None]

    def against(champion: Champion, known: KnownRows | None, why: str) -> Evaluation:
        return evaluate(
            [record],
            {record.number: variant},
            sealed,
            objective,
            trained_on=known,
            champion=champion,
            how=how,
            reason=f"{reason} against {why}",
            ledger=ledger,
            n_bytes={record.number: n_bytes},
            slicing=slicing if columns else None,
            gated=columns,
        )

    # They share what they were trained on, so that every row compares them fairly, whatever is known of it.
    paired = against(Champion(version, original, None), None, f"v{version}")
    if former is not None and any(gate.beats for gate in gates):
        judged = against(former, trained_on, f"v{former.version}")
    else:
        judged = paired.model_copy(
            update={"champion": None, "versus_champion": None, "champion_reading": None, "champion_problem": None}
        )
    scores = {} if paired.champion_reading is None else paired.champion_reading.test
    return VariantReading(
        metric=objective.metric,
        n_rows=paired.n_rows,
        original=scores,
        variant=paired.winner.test,
        difference=paired.versus_champion,
        gates=(
            keeps_promise(scores.get(objective.metric), paired.versus_champion, objective, version),
            *judge(gates, judged),
        ),
    )


def keeps_promise(
    original: Interval | None, difference: Comparison | None, objective: Objective, version: int
) -> GateResult:
    """Whether the variant is, with confidence, no further below its original than the original's own interval reaches.

    What was said of the original is then true of the variant, too: a test of non-inferiority whose margin is what the
    test leaves open about the original itself.
    """
    name = f"keeps {objective.metric} within the interval of v{version}"
    if original is None or difference is None:
        return GateResult(
            gate=name, passed=False, evidence=f"{objective.metric} is undefined on the sealed test's rows"
        )
    up = objective.direction == "maximize"
    room = original.value - original.low if up else original.high - original.value
    return GateResult(
        gate=name,
        passed=difference.difference.low >= -room,
        evidence=f"difference: {difference.difference}, must be above {-room:.4f}",
    )
