"""How many test clips come from the same source as a training clip.

A model can recognise the film of such a clip instead of the action. The lists are enough to count
them; the videos need not be on disk.
"""

import pandas as pd

from hstlib.datasets import Sample, VideoSet

RULES = {
    "video": "the very same file",
    "group": "the source that the official splits keep apart",
    "title": "the same film, whatever the class",
}


def rules_of(data: VideoSet) -> dict[str, str]:
    """Return the notions of "same source" that a data set knows, and what they mean.

    Only HMDB51's file names carry titles: a title is one film over all classes.
    """
    titled = data.name.endswith("hmdb51")
    return {rule: meaning for rule, meaning in RULES.items() if titled or rule != "title"}


def find_leaks(data: VideoSet, rule: str = "group") -> list[bool]:
    """Say of every test sample whether a training sample has the same source.

    Args:
        data: Any split.
        rule: A key of :func:`rules_of`.

    Raises:
        ValueError: If the data set does not know the rule.
    """
    if rule not in rules_of(data):
        raise ValueError(
            f"rule {rule!r} is unknown for {data.name}; use one of {[*rules_of(data)]}"
        )
    trained = {_source(sample, data, rule) for sample in data.train}
    return [_source(sample, data, rule) in trained for sample in data.test]


def _source(sample: Sample, data: VideoSet, rule: str) -> str:
    if rule == "video":
        return str(sample.path)
    if rule == "title":
        return sample.group.removesuffix(f"_{data.classes[sample.label]}")
    return sample.group


def leakage_table(data: VideoSet) -> pd.DataFrame:
    """Count test clips, and those that leak by each rule, by class; the worst class first.

    Args:
        data: Any split.
    """
    classes = pd.Series([data.classes[sample.label] for sample in data.test], name="class")
    leaks = pd.DataFrame({rule: find_leaks(data, rule) for rule in rules_of(data)})
    shares = (
        leaks.groupby(classes)
        .mean()
        .sort_values(["group", *leaks.columns.drop("group")], ascending=False)
    )
    table = leaks.groupby(classes).sum().loc[shares.index]
    table.insert(0, "test clips", classes.value_counts())
    return table
