import json
import sys
from pathlib import Path

import pytest

from hstlib.__main__ import main
from hstlib.data.datasets import Sample, VideoSet, load_dataset, split_at_random
from hstlib.data.demo import MARKER, _write_hmdb51, _write_ucf101
from hstlib.data.leakage import find_leaks, leak_rules, leakage_table

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def films(*names: str) -> tuple[Sample, ...]:
    """Samples of HMDB51-like names such as ``Alien_walk_3``."""
    samples = []
    for name in names:
        title, class_name, _ = name.split("_")
        samples.append(
            Sample(Path(name), ["run", "walk"].index(class_name), f"{title}_{class_name}")
        )
    return tuple(samples)


@pytest.fixture
def by_hand() -> VideoSet:
    train = films("Alien_walk_0", "Heat_run_0", "Heat_run_1")
    test = films("Alien_walk_1", "Heat_walk_2", "Jaws_walk_0", "Heat_run_2", "Alien_run_0")
    return VideoSet("demo-hmdb51", ("run", "walk"), train, test)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("video", [False, False, False, False, False]),
        ("group", [True, False, False, True, False]),
        ("title", [True, True, False, True, True]),
    ],
)
def test_leaks_by_hand(by_hand, rule, expected):
    assert find_leaks(by_hand, rule) == expected


def test_table_by_hand_has_the_worst_class_first(by_hand):
    table = leakage_table(by_hand)
    assert table.columns.tolist() == ["test clips", "video", "group", "title"]
    assert table.loc["run"].tolist() == [2, 0, 1, 2] and table.loc["walk"].tolist() == [3, 0, 1, 2]
    assert table.index.tolist() == ["run", "walk"]


def test_only_hmdb51_has_titles(ucf101_root):
    data = load_dataset("ucf101", ucf101_root)
    assert [*leak_rules(data)] == ["video", "group"]
    with pytest.raises(ValueError, match=r"'title' is unknown for ucf101.*\['video', 'group'\]"):
        find_leaks(data, "title")


def test_clips_of_one_video_on_both_sides_leak_by_every_rule(hmdb51_root):
    data = load_dataset("hmdb51", hmdb51_root, protocol="random-by-clip", clips_per_video=5)
    by_video, by_group = find_leaks(data, "video"), find_leaks(data, "group")
    trained = {sample.path for sample in data.train}
    assert by_video == [sample.path in trained for sample in data.test] and any(by_video)
    assert all(group >= video for video, group in zip(by_video, by_group, strict=True))


@pytest.fixture(scope="module", params=["demo-hmdb51", "demo-ucf101"])
def drawn_lists(request, tmp_path_factory) -> tuple[str, Path]:
    """The lists of a drawn corpus without its videos."""
    root = tmp_path_factory.mktemp(request.param)
    (_write_hmdb51 if request.param == "demo-hmdb51" else _write_ucf101)(root, 0)
    (root / MARKER).touch()
    return request.param, root


@pytest.mark.parametrize("split", [1, 2, 3])
def test_drawn_splits_do_not_leak_and_random_ones_do(drawn_lists, split):
    name, root = drawn_lists
    data = load_dataset(name, root, split)
    assert all(sum(find_leaks(data, rule)) == 0 for rule in leak_rules(data))
    leaks = find_leaks(split_at_random(data, split))
    assert sum(leaks) > 0.6 * len(leaks)


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_official_splits_do_not_leak_by_the_official_rule(real_clips, name, split):
    data = load_dataset(name, real_clips / name, split)
    assert sum(find_leaks(data)) == 0


@pytest.mark.parametrize(("split", "titles"), [(1, 56), (2, 39), (3, 24)])
def test_official_splits_of_real_jhmdb_share_films_between_classes(real_clips, split, titles):
    data = load_dataset("jhmdb", real_clips / "jhmdb", split)
    assert [sum(find_leaks(data, rule)) for rule in leak_rules(data)] == [0, 0, titles]


def stored() -> dict:
    return json.loads((BENCHMARKS / "results" / "leakage.json").read_text())


def test_stored_table_is_what_the_lists_give(real_clips, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import leakage

    monkeypatch.setattr(leakage, "SEEDS", range(1, 2))
    found = leakage.measure(real_clips)
    assert found["group_sizes"] == stored()["group_sizes"]
    for old, new in zip(stored()["rows"], found["rows"], strict=True):
        for key in ("test", "leaked"):
            assert old[key][: len(new[key])] == new[key]
        for key in ("dataset", "protocol", "rule"):
            assert old[key] == new[key]


def test_stored_shares_are_those_of_the_counts_and_within_the_known_range():
    sizes = stored()["group_sizes"]
    clips = {name: sum(int(size) * n for size, n in sizes[name].items()) for name in sizes}
    assert clips == {"hmdb51": 6766, "ucf101": 13320, "jhmdb": 922}
    known = {"hmdb51": (0.80, 0.86), "ucf101": (0.995, 1), "jhmdb": (0.70, 0.78)}
    for row in stored()["rows"]:
        shares = [a / b for a, b in zip(row["leaked"], row["test"], strict=True)]
        assert len(shares) == (3 if row["protocol"] == "official" else 10)
        found = {"mean": sum(shares) / len(shares), "min": min(shares), "max": max(shares)}
        assert found == pytest.approx({key: row[key] for key in found}, abs=1e-4)
        if (row["protocol"], row["rule"]) == ("random-by-video", "group"):
            low, high = known[row["dataset"]]
            assert low <= row["min"] <= row["max"] <= high
        if (row["protocol"], row["rule"]) == ("official", "group"):
            assert row["max"] == 0


@pytest.mark.parametrize("protocol", ["official", "random-by-video", "random-by-clip"])
def test_the_verb_prints_classes_and_totals(hmdb51_root, monkeypatch, capsys, protocol):
    arguments = ["leakage", "hmdb51", "--data-dir", str(hmdb51_root), "--protocol", protocol]
    monkeypatch.setattr(sys, "argv", ["hstlib", *arguments, "--split", "2"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["test", "clips", "video", "group", "title"]
    assert len(lines) == 2 + 51 + 3
    data = load_dataset("hmdb51", hmdb51_root, 2, protocol=protocol, clips_per_video=4)
    leaked, total = sum(find_leaks(data)), len(data.test)
    assert f": {leaked} of {total} test clips leak, {leaked / total:.1%}" in lines[-2]
    assert lines[-2].startswith("group, ")
