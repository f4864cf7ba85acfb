"""The view of a running search: a live panel on a terminal, one plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.search.progress import Progress

PLAIN_EVERY_S = 10.0
LIVE_PER_S = 4


@contextmanager
def progress_view(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress as suits the console."""
    if not console.is_terminal:
        yield _plain(console)
        return
    with Live(console=console, refresh_per_second=LIVE_PER_S, transient=True) as live:
        yield lambda progress: live.update(_panel(progress))


def _plain(console: Console) -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY_S:
            last = time.monotonic()
            console.print(summary(progress), highlight=False, markup=False, soft_wrap=True)

    return show


def summary(progress: Progress) -> str:
    """``12/60 trials, 3 pruned, best accuracy 0.9721 (#004), 0:31 elapsed, about 2:10 left``."""
    total = f"/{progress.budget.trials}" if progress.budget.trials is not None else ""
    parts = [f"{progress.ended}{total} trials"]
    if progress.pruned:
        parts.append(f"{progress.pruned} pruned")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best is not None:
        parts.append(f"best {progress.metric} {progress.best:.4f} (#{progress.best_trial:03d})")
    parts.append(f"{clock(progress.elapsed)} elapsed")
    if progress.seconds_left:
        parts.append(f"about {clock(progress.seconds_left)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _panel(progress: Progress) -> Group:
    families = Table(box=None, padding=(0, 2), show_edge=False)
    for heading in ("family", "trials", f"best {progress.metric}"):
        families.add_column(heading, style="bold" if heading == "family" else "", justify="left")
    for family, n in sorted(progress.ended_by_family.items()):
        best = progress.best_by_family.get(family)
        families.add_row(family, str(n), "" if best is None else f"{best:.4f}")
    lines: list[Text | ProgressBar | Table] = [
        ProgressBar(total=1.0, completed=share_done(progress), width=60),
        Text(summary(progress)),
    ]
    running = ", ".join(f"#{n:03d}" for n in progress.running[:8])
    lines.append(Text(f"training {running}" if running else "waiting for workers", style="dim"))
    lines.append(families)
    if progress.last_error:
        lines.append(Text(f"last failure: {progress.last_error}", style="yellow"))
    return Group(*lines)


def share_done(progress: Progress) -> float:
    """How far the budget that will end first is used up, from 0 to 1."""
    shares = []
    if progress.budget.trials is not None:
        shares.append(progress.ended / progress.budget.trials)
    if progress.budget.time is not None:
        shares.append(progress.elapsed / progress.budget.time)
    return min(1.0, max(shares, default=0.0))
