"""Published rows are of committed code, and the chapter on real video says what its rows say."""

import subprocess
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from hstlib.book.study import choose_rates
from hstlib.training.plan import planned_runs
from hstlib.training.rows import Row, load_rows, publish_rows

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted({path.parent for path in (ROOT / "results/published").rglob("*.jsonl")})
STUDY = ROOT / "results/published/study"


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_rows_name_a_commit_of_the_history(folder):
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("no checkout with its whole history")
    rows = load_rows(folder)
    assert rows and not any(row.dirty for row in rows)
    for commit in {row.commit for row in rows}:
        assert git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0, commit


def test_the_plan_of_the_study_has_the_rates_that_the_search_chose():
    chosen = choose_rates(load_rows(ROOT / "results/published/rates"))
    runs = planned_runs(yaml.safe_load((ROOT / "workflow/params/study.yaml").read_text())).values()
    planned = {(run.model, run.reading, run.learning_rate) for run in runs if not run.variant}
    assert planned == {(*model, rate) for model, rate in chosen.items()}


def test_the_full_width_plan_has_the_rates_that_its_search_chose():
    chosen = choose_rates(load_rows(ROOT / "results/published/full-size-rates"))
    content = yaml.safe_load((ROOT / "workflow/params/full-size.yaml").read_text())
    planned = {(r.model, r.reading, r.learning_rate) for r in planned_runs(content).values()}
    assert planned == {(*model, rate) for model, rate in chosen.items()}


def swapped(rows: list[Row], one: str, other: str) -> list[Row]:
    """Give the answers of one model to another and the reverse, on equal splits and seeds."""

    def key(row: Row, model: str) -> tuple:
        config = row.config
        return (
            config.dataset, config.protocol, config.variant, config.split, config.seed,
            model, config.reading,
        )  # fmt: skip

    by_key = {key(row, row.config.model): row for row in rows}
    partner = {one: other, other: one}
    changed = []
    for row in rows:
        source = by_key.get(key(row, partner.get(row.config.model, row.config.model)), row)
        changed.append(row.model_copy(update={"videos": source.videos, "test": source.test}))
    return changed


def verdict(results: Path, tmp_path: Path) -> str:
    """Execute the chapter and return what its last code cell prints."""
    out = tmp_path / f"{results.name}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks/11_real_video.ipynb", out, {"results_dir": str(results)},
        kernel_name="python3", cwd=ROOT, progress_bar=False,
    )  # fmt: skip
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    return "".join(output.text for output in cells[-1].outputs if "text" in output)


def test_other_answers_in_the_rows_change_the_verdict_of_the_chapter(tmp_path):
    swap = tmp_path / "swapped"
    swap.mkdir()
    publish_rows(swapped(load_rows(STUDY), "hst", "c3d"), swap / "rows.jsonl", curves=True)
    published, changed = verdict(STUDY, tmp_path), verdict(swap, tmp_path)
    assert "On J-HMDB" in published and published != changed
