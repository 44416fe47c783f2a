"""Count the test clips that come from the same source as a training clip.

A model can recognise the source of such a clip, for example the film, instead of the action. Only
the lists are read; the videos need not be on disk.
"""

import pandas as pd

from hstlib.data.samples import Sample, VideoSet

RULES = {
    "video": "the very same file",
    "group": "the source that the official splits keep apart",
    "title": "the same film, whatever the class",
}


def leak_rules(data: VideoSet) -> dict[str, str]:
    """Return the definitions of "same source" that apply to a data set, by name.

    Only the file names of HMDB51 have titles; a title is one film over all classes. If no sources
    are known, only the rule of the very same file applies.
    """
    rules = ["video"]
    if data.sources_known:
        rules.append("group")
        if data.name.endswith(("hmdb51", "jhmdb")):
            rules.append("title")
    return {rule: RULES[rule] for rule in rules}


def find_leaks(data: VideoSet, rule: str = "group") -> list[bool]:
    """For each test sample, return whether any training sample shares its source.

    Args:
        data: Any split of a data set.
        rule: Definition of the source, a key of :func:`leak_rules`.

    Raises:
        ValueError: If the rule does not apply to the data set.
    """
    if rule == "group" and not data.sources_known:
        raise ValueError(
            f"{data.name}: sources unknown, so leaks cannot be counted; name the sources in a list "
            "(`python -m hstlib adopt` writes one)"
        )
    if rule not in leak_rules(data):
        raise ValueError(
            f"rule {rule!r} is unknown for {data.name}; use one of {[*leak_rules(data)]}"
        )
    training_sources = {_source(sample, data, rule) for sample in data.train}
    return [_source(sample, data, rule) in training_sources for sample in data.test]


def _source(sample: Sample, data: VideoSet, rule: str) -> str:
    if rule == "video":
        return str(sample.path)
    if rule == "title":
        return sample.group.removesuffix(f"_{data.classes[sample.label]}")
    return sample.group


def leakage_table(data: VideoSet) -> pd.DataFrame:
    """Count test clips and leaks per class, the class with the largest share of leaks first.

    Args:
        data: Any split of a data set.

    Returns:
        One row per class: the number of test clips, then the number of leaks by each rule.
    """
    classes = pd.Series([data.classes[sample.label] for sample in data.test], name="class")
    leaks = pd.DataFrame({rule: find_leaks(data, rule) for rule in leak_rules(data)})
    shares = (
        leaks.groupby(classes)
        .mean()
        .sort_values(sorted(leaks.columns, key=lambda rule: rule != "group"), ascending=False)
    )
    table = leaks.groupby(classes).sum().loc[shares.index]
    table.insert(0, "test clips", classes.value_counts())
    return table


def leakage_summary(data: VideoSet) -> list[str]:
    """Describe the leaks of a split, one line per definition of "same source".

    Args:
        data: Any split of a data set.
    """
    total, lines = len(data.test), []
    for rule, meaning in leak_rules(data).items():
        leaked = sum(find_leaks(data, rule))
        lines.append(
            f"{rule}, {meaning}: {leaked} of {total} test clips leak, {leaked / total:.1%}"
        )
    if not data.sources_known:
        lines.append(
            "group: sources unknown; neither a list nor the file names give the source of every "
            "video, so training and test may share them"
        )
    return lines
