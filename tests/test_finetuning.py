"""What fine-tuning adds: pairs of runs, the chosen rates, what table and sentence say."""

from pathlib import Path

import pytest
from example_rows import answers, make_row

from hstlib.book.finetuning import ROWS, compare_starts, describe_source, rate_table, start_table
from hstlib.training.identity import Ancestor, differing_settings
from hstlib.training.plan import planned_runs, read_plan
from hstlib.training.rows import Row, load_rows

ROOT = Path(__file__).resolve().parents[1]
PLANS = ("finetune", "finetune-rates", "study")
ANCESTOR = Ancestor(sha256="a" * 64, run_id="jhmdb-hst-demo-s1-seed0")
SCORES = {True: (9, 8, 9, 8), False: (2, 3, 2, 3)}
"""Correct answers of ten in each of four sources, from trained and from random weights."""


def run(trained: bool, rate: float, protocol: str = "official", **changes) -> Row:
    settings = {"split": 1, "seed": 0, "dataset": "folder", "data_dir": "data/ut-interaction"}
    results = {"videos": answers(SCORES[trained]), "train_top1": 1.0}
    for name in ("videos", "train_top1", "top1"):
        results |= {name: changes.pop(name)} if name in changes else {}
    row = make_row(
        **results, **settings | changes, learning_rate=rate, protocol=protocol,
        from_="a.safetensors" if trained else "",
    )  # fmt: skip
    return row.model_copy(update={"ancestor": ANCESTOR if trained else None})


def runs(rates: dict[bool, float] | None = None) -> list[Row]:
    """Two rates for each start, of which the higher suits random weights, and the runs at those."""
    rates = rates or {True: 0.001, False: 0.01}
    search = [
        run(trained, rate, "validation", top1=top1)
        for trained, tops in {True: (0.9, 0.5), False: (0.3, 0.4)}.items()
        for rate, top1 in zip((0.001, 0.01), tops, strict=True)
    ]
    tested = [run(trained, rate, seed=seed) for trained, rate in rates.items() for seed in range(3)]
    return search + tested


def test_the_difference_is_that_of_the_same_sources_and_seeds():
    (pair,) = compare_starts(runs())
    assert [len(rows) for rows in (pair.trained, pair.random)] == [3, 3]
    assert pair.difference.mean == pytest.approx(60.0)
    assert 40 < pair.difference.low < 60 < pair.difference.high < 80
    assert pair.sentence.startswith(
        "HST, 5500 steps from either start: starting from weights of J-HMDB helps: 85.0 % instead "
        "of 25.0 %, a difference of +60.0 points [+"
    )
    assert pair.sentence.endswith("; split 1, seeds 0 1 2.")


def test_the_verdict_follows_the_answers():
    rows = runs()
    swapped = [
        row.model_copy(update={"videos": answers(SCORES[row.ancestor is None])}) for row in rows
    ]
    assert "J-HMDB harms: 25.0 %" in compare_starts(swapped)[0].sentence
    same = [row.model_copy(update={"videos": answers(SCORES[True])}) for row in rows]
    assert "makes no difference" in compare_starts(same)[0].sentence
    unfitted = [*rows[:-1], run(False, 0.01, seed=2, train_top1=0.5)]
    said = compare_starts(unfitted)[0].sentence
    assert said.endswith("change this: from random weights, the training top-1 of a run is 50 %.")


def test_a_run_without_its_partner_is_left_out():
    (pair,) = compare_starts(runs()[:-1])
    assert {row.config.seed for row in (*pair.trained, *pair.random)} == {0, 1}
    with pytest.raises(ValueError, match="no split and seed was run from both"):
        compare_starts(runs()[:-3])


def test_rates_that_were_not_chosen_other_steps_and_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"trained at 0\.01, but the rate chosen .* is 0\.001"):
        compare_starts(runs({True: 0.01, False: 0.01}))
    longer = [*runs()[:-1], run(False, 0.01, seed=2, epochs=200)]
    with pytest.raises(ValueError, match="differ in steps"):
        compare_starts(longer)
    other = runs()
    other[4] = other[4].model_copy(
        update={"ancestor": Ancestor(sha256="b" * 64, run_id=ANCESTOR.run_id)}
    )
    with pytest.raises(ValueError, match="differ in trained weights"):
        compare_starts(other)


def test_the_tables_have_every_start():
    rows = runs()
    table = start_table(compare_starts(rows))
    assert table["weights"].tolist() == ["random", "J-HMDB"]
    assert table["learning rate"].tolist() == [0.01, 0.001]
    assert table["by fold (%)"].notna().all() and table["minus random"][0] == ""
    assert table["minus random"][1].startswith("60.0 [")
    rates = rate_table(rows)
    assert rates[["0.001", "0.01"]].values.tolist() == [["90.0", "50.0"], ["30.0", "40.0"]]


def test_the_trained_weights_are_compared_with_the_published_ones():
    (pair,) = compare_starts(runs())
    source = make_row(dataset="jhmdb", model="hst", backbone="demo")
    assert source.run_id == ANCESTOR.run_id
    said = [
        describe_source(pair, [source.model_copy(update={"weights": weights})])
        for weights in (ANCESTOR.sha256, "c" * 64, "")
    ]
    assert "a" * 16 + ", the published ones." in said[0]
    assert said[1].endswith("not the published ones.") and said[2].endswith("has no hash.")


def test_the_published_rows_are_runs_of_their_plans_from_a_run_of_the_study():
    read = {name: read_plan(ROOT / f"workflow/params/{name}.yaml") for name in PLANS}
    planned = planned_runs(read["finetune"]) | planned_runs(read["finetune-rates"])
    rows = load_rows(ROOT / ROWS)
    for row in rows:
        assert not differing_settings(planned[row.run_id].model_dump(), row.config.model_dump())
        assert not (row.dirty or row.problems or row.missing)
    (pair,) = compare_starts(rows)
    source = pair.trained[0].ancestor.run_id
    assert source in planned_runs(read["study"])
    weights = f"{read['study']['build']}/results/{source}/last.safetensors"
    assert {row.config.from_ for row in pair.trained} == {weights}
    assert pair.source == "J-HMDB" and pair.trained[0].steps == pair.random[0].steps
