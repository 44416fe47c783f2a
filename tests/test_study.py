"""Sentences about trained models follow from the rows, whatever the rows say."""

import numpy as np
import pytest
from example_rows import make_row

from hstlib.book.study import (
    check_rates,
    choose_rates,
    differences_from_hst,
    differences_from_references,
    group_by_model,
    not_counted,
    results,
)
from hstlib.training.rows import Row

HST = {"model": "hst", "learning_rate": 0.003}
C3D = {"model": "c3d", "learning_rate": 0.001}


def trained(accuracy: float, split: int = 1, seed: int = 0, train: float = 1.0, **settings) -> Row:
    """A run on J-HMDB with 40 sources of 5 videos; the answers differ with the seed."""
    rng = np.random.default_rng((seed, split, round(100 * accuracy)))
    wrong = np.ones(200, int)
    wrong[rng.permutation(200)[: round(200 * accuracy)]] = 0
    videos = [(0, int(answer), index // 5) for index, answer in enumerate(wrong)]
    settings = {"dataset": "jhmdb", "backbone": "demo", "epochs": 40} | settings
    row = make_row(accuracy, videos=videos, split=split, seed=seed, **settings)
    return row.model_copy(update={"epochs": [{**row.epochs[0], "train_top1": train}]})


def test_swapped_answers_turn_the_sentence_round():
    (ahead,) = differences_from_hst([trained(0.8, **HST), trained(0.3, **C3D)])
    (behind,) = differences_from_hst([trained(0.3, **HST), trained(0.8, **C3D)])
    assert ahead.sentence.startswith("HST is more accurate than C3D (+50.0 points")
    assert behind.sentence.startswith("HST is less accurate than C3D (-50.0 points")
    (equal,) = differences_from_hst([trained(0.5, **HST), trained(0.51, **C3D)])
    assert equal.sentence.startswith("HST and C3D cannot be told apart (-1.0 points")


@pytest.mark.parametrize(("hst", "c3d", "named"), [(0.9, 1.0, "HST"), (1.0, 0.94, "C3D")])
def test_a_model_that_has_not_fitted_gets_no_verdict(hst, c3d, named):
    rows = [trained(0.8, train=hst, **HST), trained(0.3, train=c3d, **C3D)]
    (difference,) = differences_from_hst(rows)
    assert difference.sentence.startswith("HST and C3D: no verdict")
    assert (
        f"training accuracy of {named} ended at {100 * min(hst, c3d):.0f} %" in difference.sentence
    )


def test_the_accuracy_of_the_final_weights_counts_where_a_row_has_it():
    row = trained(0.5, train=0.9, **HST)
    final = row.model_copy(update={"training_top1": 0.97})
    assert [results([r])[0].fitted for r in (row, final)] == [False, True]


def test_the_correction_counts_every_comparison():
    rows = [trained(0.55, **HST), trained(0.45, **C3D), trained(0.44, model="r3d")]
    alone = differences_from_hst(rows[:2])[0]
    together = differences_from_hst(rows)
    assert [d.other.title for d in together] == ["C3D", "R3D"]
    assert alone.corrected == alone.interval.p_value < together[0].corrected


def test_only_runs_that_both_models_have_are_compared():
    hst = [trained(0.8, split, seed, **HST) for split in (1, 2, 3) for seed in (0, 1)]
    c3d = [trained(0.3, 1, 0, **C3D), trained(0.3, 3, 0, **C3D), trained(0.3, 3, 1, **C3D)]
    (difference,) = differences_from_hst([*hst, *c3d])
    assert difference.hst.runs == difference.other.runs == "splits 1 3, seeds 0 1, 3 runs"
    assert difference.interval.mean == pytest.approx(50)


def test_a_run_that_has_not_fitted_does_not_count_beside_others_of_its_model():
    def unfitted(row: Row) -> Row:
        return row.model_copy(update={"training_top1": 0.9})

    hst = [trained(0.8, split, seed, **HST) for split in (1, 2) for seed in (0, 1)]
    c3d = [trained(0.3, split, seed, **C3D) for split in (1, 2) for seed in (0, 1)]
    some = [unfitted(hst[0]), *hst[1:3], unfitted(hst[3]), unfitted(c3d[1]), c3d[0], *c3d[2:]]
    assert [row.run_id for row in not_counted(some)] == [some[i].run_id for i in (0, 3, 4)]
    first, other = results(some)
    assert (first.runs, other.runs) == (
        "splits 1 2, seeds 0 1, 2 runs",
        "splits 1 2, seeds 0 1, 3 runs",
    )
    assert first.fitted and other.fitted
    (difference,) = differences_from_hst(some)
    assert difference.fitted and difference.other.runs == "split 2, seed 0"
    none = [*map(unfitted, hst), *c3d]
    assert results(none)[0].runs == "splits 1 2, seeds 0 1" and not_counted(none) == []
    assert "HST and C3D: no verdict" in differences_from_hst(none)[0].sentence


def test_hst_comes_first_then_baselines_then_its_readings():
    rows = [
        trained(0.5, reading="trunk-alone"), trained(0.5, model="r3d-flow"),
        trained(0.5, model="r3d"), trained(0.5),
    ]  # fmt: skip
    titles = [result.title for result in results(rows)]
    assert titles == ["HST", "R3D", "R3D with flow", "HST (trunk alone)"]


@pytest.mark.parametrize("other", [{"epochs": 5}, {"size": 96}, {"protocol": "random-by-video"}])
def test_runs_of_another_budget_are_refused_by_name(other):
    (name,) = other
    with pytest.raises(ValueError, match=f"cannot be compared: {name} "):
        group_by_model([trained(0.5, **HST), trained(0.5, **C3D, **other)])


def test_other_test_videos_are_refused():
    other = trained(0.5, **C3D)
    other = other.model_copy(update={"videos": other.videos[:-1]})
    with pytest.raises(ValueError, match="C3D were not tested on the same videos"):
        differences_from_hst([trained(0.5, **HST), other])


def test_hst_is_compared_with_what_needs_no_network_on_the_same_videos():
    rows = [trained(0.6, split, 0, **HST) for split in (1, 2)]
    rows = [row.model_copy(update={"split_id": f"s{row.config.split}"}) for row in rows]
    answers = [(f"s{split}", "ridge", "1" * 40 + "0" * 160) for split in (1, 2)]
    answers += [("s1", name, "0" * 200) for name in ("length", "geometry")]
    answers.append(("s9", "colour", "1" * 200))
    entries = [dict(zip(("split_id", "reference", "correct"), a, strict=True)) for a in answers]
    ridge, length = differences_from_references(rows, entries)
    assert ridge.sentence.startswith("HST is more accurate than ridge (+40.0 points")
    assert (ridge.other.accuracy.mean, ridge.other.runs) == (20, "splits 1 2, seed 0")
    assert length.other.title == "length = geometry"  # one comparison, and one of the family
    assert (length.interval.mean, length.other.runs) == (pytest.approx(60), "split 1, seed 0")
    with pytest.raises(ValueError, match="shorter"):
        differences_from_references(rows, [entries[0] | {"correct": "1"}])


def tried(rate: float, top1: float, **settings) -> Row:
    row = make_row(top1, dataset="jhmdb", learning_rate=rate, **settings)
    return row.model_copy(update={"test": {"top1": top1, "top5": top1 / 2 + rate}})


def test_the_rate_with_the_most_correct_answers_is_chosen_then_that_with_the_best_five():
    rows = [tried(rate, top1, protocol="validation") for rate, top1 in
            [(0.01, 0.2), (0.003, 0.3), (0.001, 0.3)]]  # fmt: skip
    assert choose_rates(rows) == {("hst", "paper"): 0.003}
    check_rates([trained(0.5, learning_rate=0.003)], choose_rates(rows))
    with pytest.raises(ValueError, match=r"trained at 0\.01, but 0\.003 was chosen"):
        check_rates([trained(0.5, learning_rate=0.01)], choose_rates(rows))


def test_a_rate_is_not_chosen_on_a_test_set():
    with pytest.raises(ValueError, match="chosen by 'validation' only"):
        choose_rates([tried(0.01, 0.2)])
