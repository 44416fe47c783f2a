"""The sentences of the first page follow from the rows and change with them."""

import pytest
from example_rows import answers, make_row

from hstlib.book.findings import (
    BY_CLIP,
    OFFICIAL,
    RANDOM,
    Evidence,
    decisions,
    describe_setting,
    sentences,
)
from hstlib.book.study import differences_from_hst
from hstlib.training.rows import Row

PROTOCOLS = {"official": "o", "random-by-video": "r"}


def run(model: str, correct: int, protocol: str = "official", train: float = 1.0) -> Row:
    """A run on J-HMDB with 20 test videos of a source each, so many of them correct."""
    videos = [(0, 0 if index < correct else 1, index) for index in range(20)]
    config = {"model": model, "dataset": "jhmdb", "protocol": protocol, "backbone": "demo"}
    row = make_row(correct / 20, videos=videos, **config)
    epochs = [{**row.epochs[0], "train_top1": train}]
    return row.model_copy(update={"split_id": PROTOCOLS[protocol], "epochs": epochs})


def evidence(*rows: Row) -> Evidence:
    references = [
        {"dataset": "jhmdb", "protocol": protocol, "split_id": split_id, "reference": name}
        | {"top1": top1, "correct": "1" * round(20 * top1) + "0" * round(20 - 20 * top1)}
        for protocol, split_id in PROTOCOLS.items()
        for name, top1 in (("colour histogram", 0.6 if split_id == "r" else 0.1), ("flow", 0.3))
    ]
    references.append(references[0] | {"split_id": "without runs", "top1": 1.0})
    splits = [
        {"dataset": "jhmdb", "protocol": protocol, "test": 20, "leaked": 15 * (split_id == "r")}
        for protocol, split_id in PROTOCOLS.items()
    ]
    return Evidence(list(rows), references, splits)


BOTH_WAYS = [
    run("hst", 18), run("c3d", 2),
    run("hst", 19, "random-by-video"), run("c3d", 10, "random-by-video"),
]  # fmt: skip


def test_the_sentences_say_what_the_rows_say():
    claim, comparison, readings, leak, no_network, not_run = sentences(evidence(*BOTH_WAYS))
    assert "85.53 % on HMDB51" in claim and "86.3 % on UCF101" in claim
    assert comparison.endswith(
        "(split 1, seed 0), HST has a top-1 of 90.0 % and is more accurate than C3D."
    )
    assert readings.endswith("not run.")
    assert "75 % of the test videos share a film" in leak
    assert "networks have 50 to 95 % instead of 10 to 90 %" in leak
    assert leak.endswith("histogram without a network has 60 % instead of 10 %.")
    assert "flow, has 30.0 %; 1 of 2 fitted networks has more" in no_network
    assert "at full size on HMDB51 and UCF101, was not run" in not_run


def test_a_network_that_has_not_fitted_is_left_out_of_the_leak():
    unfitted = [run("r3d", 1), run("r3d", 20, "random-by-video", train=0.5)]
    assert sentences(evidence(*BOTH_WAYS, *unfitted))[3] == sentences(evidence(*BOTH_WAYS))[3]
    table = evidence(*BOTH_WAYS, *unfitted).leak_table()
    assert {"HST", "C3D", "R3D, not fitted"} < set(table.index)


def test_other_rows_change_them():
    other = [run("hst", 2), run("c3d", 18), make_row(dataset="hmdb51")]
    _, comparison, _, leak, no_network, not_run = sentences(evidence(*other))
    assert "HST has a top-1 of 10.0 % and is less accurate than C3D" in comparison
    assert leak.endswith("not run.")
    assert "1 of 2 fitted" in no_network
    assert "on UCF101, was not run" in not_run
    assert "not run" in sentences(evidence())[1]


def test_readings_are_counted_and_the_best_is_tested_again():
    def on_fold(hits: int, split: int = 1, **settings) -> Row:
        videos = [(0, 0 if index < hits else 1, index) for index in range(40)]
        return make_row(videos=videos, split=split, train_top1=1, **settings)

    rows = [
        on_fold(8),
        on_fold(36, reading="hard-mask"),
        on_fold(12, model="r3d"),
        on_fold(10, model="c3d"),
        on_fold(2, split=2, reading="hard-mask"),
        on_fold(38, split=2, model="r3d"),
    ]
    said = sentences(Evidence([], evidence().references, evidence().splits, rows))[2]
    assert said.startswith("Of 2 faithful readings of the paper that were trained to the end on")
    assert "1 have a higher top-1 there than the best of the other models, R3D; 1 of these" in said
    assert said.endswith("(split 2, seed 0), is less accurate than R3D.")


def test_the_second_corpus_is_named_where_it_was_run():
    rows = [
        make_row(videos=answers([hits] * 20), dataset="folder", model=model, train_top1=1)
        for model, hits in (("hst", 1), ("r3d", 9))
    ]
    comparison = sentences(evidence(*BOTH_WAYS, *rows))[1]
    assert "than C3D. On UT-Interaction, in folds of sequences (split 1, seed 0), HST" in comparison
    assert comparison.endswith("and is less accurate than R3D.")
    there = evidence(*BOTH_WAYS, *rows).leak_table("folder")
    assert set(there.index) == {"HST", "R3D"} and there[RANDOM].isna().all()


def test_a_variant_has_a_leak_table_of_its_own():
    def four_clips(hits: int, protocol: str, train: float = 1.0, **settings) -> Row:
        settings |= {"dataset": "folder", "variant": "four-clips", "protocol": protocol}
        return make_row(videos=answers([hits] * 20), train_top1=train, **settings)

    rows = [
        *(four_clips(hits, "official", model=model) for model, hits in (("hst", 2), ("r3d", 4))),
        four_clips(8, "random-by-clip"),
        four_clips(9, "random-by-clip", 0.5, model="r3d"),
    ]
    table = evidence(*BOTH_WAYS, *rows).leak_table("folder", BY_CLIP, "four-clips")
    assert table.loc["HST", [OFFICIAL, BY_CLIP, "added"]].tolist() == pytest.approx([20, 80, 60])
    assert set(table.index) == {"HST", "R3D, not fitted"}


def test_models_with_fewer_seeds_than_another_are_told_of():
    def again(row: Row) -> Row:
        config = row.config.model_copy(update={"seed": 1})
        return row.model_copy(update={"config": config, "run_id": config.run_id})

    two = [*BOTH_WAYS[:2], *map(again, BOTH_WAYS[:2])]
    assert "(split 1, seeds 0 1), HST" in sentences(evidence(*two))[1]
    said = sentences(evidence(*two, run("r3d", 3)))[1]
    assert "(split 1, seeds 0 1; fewer for some models), HST has" in said


@pytest.mark.parametrize(
    ("c3d", "train", "decision"),
    [(2, 1.0, "more accurate"), (18, 1.0, "undecided"), (2, 0.9, "not fitted")],
)
def test_decisions(c3d, train, decision):
    found = decisions(differences_from_hst([run("hst", 18), run("c3d", c3d, train=train)]))
    assert {name for name, titles in found.items() if titles} == {decision}


def test_references_are_those_of_the_splits_that_were_run():
    table = evidence(*BOTH_WAYS).leak_table()
    assert table.loc["colour histogram", [OFFICIAL, RANDOM]].tolist() == pytest.approx([10, 60])
    assert table.loc["HST", "added"] == pytest.approx(5)


def test_a_setting_is_compared_with_the_runs_that_differ_in_it_alone():
    def fit(value: str, hits: list[int], **settings) -> Row:
        return make_row(videos=answers(hits), fit=value, dataset="jhmdb", **settings)

    usual, other = fit("stretch", [2, 3, 2, 3]), fit("letterbox", [8, 7, 8, 7])
    clause = describe_setting([usual, other], "fit", "letterbox")
    assert clause.startswith("hst (paper) on jhmdb, split 1, seed 0: +50.0 points [")
    assert describe_setting([usual], "fit", "letterbox") == "not trained"
    alone = "no published run differs in it alone"
    assert describe_setting([usual, fit("letterbox", [8] * 4, seed=1)], "fit", "letterbox") == alone
    longer = fit("letterbox", [8] * 4, epochs=7)
    assert describe_setting([usual, longer], "fit", "letterbox") == alone
