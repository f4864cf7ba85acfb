"""Optuna's plots of a search: a section a family, all on one page that asks nobody for anything."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.config import SearchConfig
from pipeline.records import TrialRecord
from pipeline.search.importance import importances
from pipeline.search.plots import plots
from pipeline.search.study import JOURNAL, OptunaSuggester, open_study, read_study
from tests.tracking.records import record as make_record


def search(directory: Path, n_trials: int) -> list[TrialRecord]:
    """Trials of two families, of which every fifth was pruned."""
    study = open_study(directory, "digits-1", "maximize", SearchConfig(), 3, several_families=True)
    records = []
    for _ in range(n_trials):
        live = study.optuna.ask()
        suggester = OptunaSuggester(live)
        family = suggester.choice("family", ["mlp", "cnn"])
        rate, width = suggester.number(f"{family}.dropout", 0, 1), suggester.integer(f"{family}.width", 1, 64)
        score = 1 - (rate - 0.3) ** 2 + width / 1000
        for epoch in (1, 2):
            live.report(score * epoch / 2, epoch)
        pruned = live.number % 5 == 4
        made = make_record(live.number, state="PRUNED" if pruned else "COMPLETE")
        config = made.config.model_copy(update={"family": family})
        changes = {"params": live.params, "objective": score, "n_params": 10 * width, "config": config}
        record = made.model_copy(update=changes)
        study.tell(record)
        records.append(record)
    study.commit()
    return records


def page_of(directory: Path, records: list[TrialRecord]) -> str | None:
    study = read_study(directory, "digits-1")
    assert study is not None
    return plots(study, records, "accuracy", importances(study, records))


def test_every_family_has_its_plots_and_the_page_needs_no_network(tmp_path: Path) -> None:
    page = page_of(tmp_path, search(tmp_path, 40))
    assert page is not None
    assert "plotly.js v" in page
    titles = re.findall(r"<h[23][^>]*>([^<]*)<", page)
    overall = ["All families", "History", "Share of trials that reach a score", "Score against size", "Timeline"]
    of_family = ["Curves", "Importance (PED-ANOVA)", "Slices", "Parallel coordinates", "The two most important"]
    assert titles == [*overall, "cnn", *of_family, "mlp", *of_family]
    outside = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.S)  # plotly's own text names its sites
    assert not re.search(r"(?:src|href)=\"(?!#)", outside)


def test_trials_are_drawn_with_their_family_and_by_the_number_they_have_everywhere(tmp_path: Path) -> None:
    records = search(tmp_path, 40)
    page = page_of(tmp_path, records)
    assert page is not None
    _, first, overall, *sections = re.split(r'<h2 id="([^"]*)"', page)
    assert first == "All families"
    for family, section in zip(sections[::2], sections[1::2], strict=True):
        drawn = {int(number) for number in re.findall(r'"name":"Trial(\d+)"', section)}
        assert drawn == {record.number for record in records if record.family == family}
    best = max(record.objective or 0.0 for record in records if record.state == "COMPLETE")
    against_size = overall.split("Score against size")[1].split("Timeline")[0]
    assert repr(best) in against_size


def test_a_family_with_few_trials_has_its_curves_only(tmp_path: Path) -> None:
    page = page_of(tmp_path, search(tmp_path, 8))
    assert page is not None
    assert "Curves" in page
    assert "Importance (PED-ANOVA)" not in page


def test_nothing_is_drawn_of_one_trial(tmp_path: Path) -> None:
    assert page_of(tmp_path, search(tmp_path, 1)) is None


def test_a_search_that_wrote_no_journal_has_no_study_to_draw(tmp_path: Path) -> None:
    assert read_study(tmp_path, "digits-1") is None
    assert list(tmp_path.iterdir()) == [], "looking makes no file"
    (tmp_path / JOURNAL).touch()  # as a kill at its start leaves it
    assert read_study(tmp_path, "digits-1") is None
