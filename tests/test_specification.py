"""The specification curve: a balanced design, effects of single choices, and what stands above."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from example_rows import make_row

from hstlib.book import specification
from hstlib.book.failures import failures
from hstlib.book.specification import (
    changes,
    comparable,
    contributions,
    curve,
    describe_changes,
    design,
    effects,
    held_out_runs,
    is_faithful,
    standings,
)
from hstlib.book.study import differences_from_reading
from hstlib.model.readings import READINGS, combinable
from hstlib.training.plan import planned_runs, read_plan
from hstlib.training.rows import Row

PLAN = Path(__file__).resolve().parents[1] / "workflow/params/readings.yaml"
SIMPLE = [names[0] for names in combinable().values() if len(names) == 1]


def taken(reading: str) -> set[str]:
    return set(reading.split("+"))


def run(reading: str, correct: int, model: str = "hst", fitted: bool = True, split: int = 1) -> Row:
    """A run that is right about so many of 40 videos, the same number in each of 4 sources."""
    videos = [(0, int(number // 4 >= correct // 4), number % 4) for number in range(40)]
    training = 1 if fitted else 0.5
    return make_row(
        correct / 40, videos=videos, model=model, reading=reading, split=split, train_top1=training
    )


def test_the_plan_has_the_readings_of_the_design_in_its_order():
    whole = read_plan(PLAN) | {"excluded": {}}
    models = {run.reading: None for run in planned_runs(whole).values() if run.model == "hst"}
    assert [reading for reading in models if is_faithful(run(reading, 0))] == design()


@pytest.mark.parametrize("runs", [32, 64])
def test_any_three_choices_meet_in_all_combinations_equally_often(runs):
    readings = [taken(reading) for reading in design()[:runs]]
    whole = SIMPLE if runs == 64 else SIMPLE[:-1]  # half of it lacks one choice's threes
    for three in combinations(whole, 3):
        for levels in product([False, True], repeat=3):
            met = [
                all((name in here) == level for name, level in zip(three, levels, strict=True))
                for here in readings
            ]
            assert sum(met) == runs // 8, three


@pytest.mark.parametrize("runs", [32, 64])
def test_each_of_two_alternatives_is_taken_by_a_quarter(runs):
    for names in combinable().values():
        for name in names:
            count = sum(name in taken(reading) for reading in design()[:runs])
            assert count == runs // (2 * len(names)), name


def test_effects_of_choices_that_add_up_are_found_exactly():
    added = {"hard-mask": 8, "matrix-product": -4, "same-window-residual": 4}
    rows = [
        run(reading, 20 + sum(added.get(name, 0) for name in taken(reading)))
        for reading in design()[:32]
    ]
    found = {effect.reading: effect for effect in effects(rows)}
    assert found.keys() == {name for names in combinable().values() for name in names}
    for name, effect in found.items():
        assert effect.interval.mean == pytest.approx(100 * added.get(name, 0) / 40), name
        assert (effect.corrected < 0.05) == (name in added), name


def test_readings_that_do_not_tell_the_alternatives_apart_have_no_effects():
    rows = [run(reading, 20, fitted=number < 16) for number, reading in enumerate(design())]
    assert effects(rows) == []
    assert describe_changes(rows)["hard-mask"] == "not trained in enough combinations"
    assert describe_changes(rows)["without-flow"] == "not trained"


def test_what_came_out_of_a_change_is_said_with_its_interval():
    videos = [(0, int(number < 8), number) for number in range(40)]
    rows = [
        make_row(0.8, videos=videos, train_top1=1.0),
        make_row(
            1,
            videos=[(0, 0, number) for number in range(40)],
            train_top1=1.0,
            reading="without-flow",
        ),
    ]
    assert describe_changes(rows)["without-flow"].startswith("more accurate, +20.0 points [")
    assert describe_changes(rows[1:])["without-flow"].startswith("no verdict")


def test_the_interval_of_an_effect_holds_the_truth_in_95_of_100_cases():
    """Sources that answer differently to a choice, and runs that differ by chance."""
    generator = np.random.default_rng(0)
    readings = [taken(reading) for reading in design()[:32]]
    names = [name for name in READINGS if READINGS[name].factor]
    matrix = np.array([[1, *(name in here for name in names)] for here in readings], float)
    held, cases = 0, 400
    for _ in range(cases):
        by_source = generator.normal(0.02, 0.02, (len(names) + 1, 10))  # mean of an effect: 0.2
        by_run = generator.normal(0, 0.05, (32, 1)) / 10
        shares = matrix @ by_source + by_run + generator.normal(0, 0.005, (32, 10))
        interval = specification._interval(matrix, shares, 1 + generator.integers(len(names)))
        held += interval.low <= 20 <= interval.high
    assert 0.93 <= held / cases <= 0.995


def test_readings_stand_above_or_below_a_baseline():
    rows = [
        run("paper", 32),
        run("hard-mask", 20),
        run("no-norm-on-t", 8),
        run("hard-mask+no-norm-on-t", 36, fitted=False),
    ]
    assert [result.accuracy.mean for result in curve(rows)] == [20, 50, 80, 90]
    (standing,) = standings(
        [*rows, run("paper", 20, model="r3d"), run("without-flow", 40, fitted=False)]
    )
    assert (standing.title, standing.ahead, standing.behind) == ("R3D", 1, 1)
    (swapped,) = standings([*rows, run("paper", 4, model="r3d")])
    assert (swapped.ahead, swapped.behind) == (3, 0)


def test_readings_are_compared_on_the_runs_that_they_share():
    rows = [
        run("paper", 20),
        run("paper", 40, split=2),
        run("hard-mask", 24),
        run("paper", 8, model="r3d"),
        run("paper", 40, model="r3d", split=2),
        run("without-flow", 0, split=2),
    ]
    assert [result.accuracy.mean for result in curve(rows)] == [50, 60]
    assert [result.runs for result in comparable(rows)] == ["split 1, seed 0"] * 2
    (standing,) = standings(rows)
    assert (standing.other.accuracy.mean, standing.ahead) == (20, 2)
    (part,) = contributions(rows)  # on its own runs
    assert (part.interval.mean, part.other.runs) == (100, "split 2, seed 0")
    assert changes(rows)["without-flow"][0].mean == -100
    assert curve(rows[3:]) == standings(rows[3:]) == contributions(rows[3:]) == []


def test_the_most_accurate_reading_is_tested_on_runs_that_did_not_choose_it():
    rows = [
        run("paper", 20),
        run("hard-mask", 24),
        run("no-norm-on-t", 36, fitted=False),
        run("hard-mask", 4, split=2),
        run("paper", 40, split=2),
        run("paper", 20, model="r3d", split=2),
    ]
    assert [row.run_id for row in held_out_runs(rows)] == [rows[3].run_id]
    built, r3d = differences_from_reading(held_out_runs(rows), rows)
    assert (built.interval.mean, r3d.interval.mean) == (-90, -40)
    assert built.sentence.startswith("The chosen reading and HST as built cannot be told apart (")
    assert held_out_runs(rows[:3]) == held_out_runs([]) == []
    assert differences_from_reading([], rows) == []


def test_a_part_that_has_not_fitted_gets_no_verdict():
    rows = [run("paper", 20), run("without-flow", 4, fitted=False), run("without-svn", 4)]
    assert [part.fitted for part in contributions(rows)] == [False, True]
    assert changes(rows).keys() == {"without-svn"}


def test_ablations_and_baselines_are_no_faithful_readings():
    assert is_faithful(run("paper", 1)) and is_faithful(run("hard-mask+matrix-product", 1))
    assert not is_faithful(run("without-flow", 1))
    assert not is_faithful(run("paper", 1, model="c3d"))


def test_all_comparisons_of_readings_and_models_are_one_family():
    def of(hits: int, **settings) -> Row:
        videos = [(0, int(number >= hits), number) for number in range(24)]
        return make_row(videos=videos, train_top1=1, **settings)

    rows = [of(10), of(10, reading="hard-mask"), of(3, model="r3d")]
    (alone,) = standings(rows)
    assert (alone.ahead, alone.clearly_ahead) == (2, 2)
    others = ("c3d", "r2plus1d", "r3d-standard", "r3d-flow")
    stands = standings([*rows, *(of(3, model=model) for model in others)])
    assert [(stand.ahead, stand.clearly_ahead) for stand in stands] == [(2, 0)] * 5


def test_failures_are_counted_with_and_without_each_alternative():
    half = [name for name in design() if "no-norm-on-gamma" in taken(name)]
    stopped = half[:9]
    rows = [
        run(name, 20, fitted=name not in half[9:12]) for name in design() if name not in stopped
    ]
    found = {(f.reading, f.kind): f for f in failures(rows, stopped)}
    stops = found["no-norm-on-gamma", "stops"]
    assert stops.present == (9, 32) and stops.absent == (0, 32)
    fits = found["no-norm-on-gamma", "does not fit"]
    assert fits.present == (3, 23) and fits.absent == (0, 32)
    assert len(found) == 2 * len(
        {name for reading in design() for name in taken(reading)} - {"paper"}
    )
    assert stops.corrected == min(f.corrected for f in found.values())


def test_all_readings_that_fail_without_one_choice_make_it_clear():
    half = [name for name in design() if "hard-mask" in taken(name)]
    found = failures([run(name, 20) for name in design() if name not in half[:16]], half[:16])
    clear = [(f.reading, f.kind) for f in found if f.corrected < 0.05]
    assert ("hard-mask", "stops") in clear
    assert "16 of 32 readings with hard-mask, and in 0 of 32 without" in " ".join(
        f.sentence for f in found
    )
