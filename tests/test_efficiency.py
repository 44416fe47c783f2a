from example_rows import answers, make_row

from hstlib.book.architecture import multiply_adds
from hstlib.book.efficiency import (
    differences_at_equal_multiply_adds,
    efficiency_table,
    training_multiply_adds,
)
from hstlib.model.registry import build_model


def test_every_model_has_its_size_its_interval_and_whether_it_has_fitted():
    settings = {"dataset": "jhmdb", "backbone": "demo", "size": 16}
    rows = [
        make_row(videos=answers([6, 5, 7, 6]), train_top1=1.0, model="hst", **settings),
        make_row(videos=answers([3, 4, 3, 2]), train_top1=0.5, model="r3d", **settings),
    ]
    table = efficiency_table(rows)
    assert list(table.index) == ["HST", "R3D"] and table["fitted"].tolist() == [True, False]
    assert table["top-1"].round(6).tolist() == [60, 30]
    assert (table["low"] < table["top-1"]).all() and (table["top-1"] < table["high"]).all()
    expected = multiply_adds(lambda: build_model("r3d", 51, "demo"), rows[1].config.input_size)
    assert table["multiply-adds"]["R3D"] == expected > 0
    assert table["parameters"]["R3D"] == rows[1].parameters


def test_hst_trained_longer_is_compared_with_what_costs_as_much():
    settings = {"dataset": "jhmdb", "backbone": "demo", "size": 48, "epochs": 60}
    hst, r3d, c3d = (
        make_row(videos=answers(hits), train_top1=1.0, model=model, **settings)
        for model, hits in (("hst", [5] * 8), ("r3d", [2] * 8), ("c3d", [9] * 8))
    )
    rows = [hst, r3d, c3d]
    epochs = round(60 * training_multiply_adds(r3d) / training_multiply_adds(hst))
    assert epochs > 60
    longer = make_row(
        videos=answers([6] * 8),
        train_top1=1.0,
        model="hst",
        variant="longer",
        **settings | {"epochs": epochs},
    )
    (difference,) = differences_at_equal_multiply_adds([longer], rows)
    assert (difference.other.title, difference.interval.mean) == ("R3D", 40)
    assert differences_at_equal_multiply_adds([], rows) == []
