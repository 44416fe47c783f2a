"""Predicates on what the paper prints: its figures, its tables, and what its words leave open.

Words of the paper among the arguments are quoted; ``tests/test_ledger.py`` looks each of them up
where the paper is at hand, since the project does not ship it.
"""

import math
import re
from itertools import combinations, pairwise

from hstlib.book.citations import load_citations
from hstlib.book.paper import ARCHITECTURE, ARCHITECTURE_COLUMNS, PAPER_ROWS, PaperRow
from hstlib.book.verdicts import CONTRADICTED, HOLDS, UNCHECKABLE, Finding, decide
from hstlib.config import TrainConfig, project_path
from hstlib.model.inputs import NUM_FRAMES

NORMAL_QUANTILE = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""


def conflict(other: str, about: str) -> Finding:
    """Another sentence of the paper says something else; both are quoted."""
    return Finding(CONTRADICTED, {"other": other, "about": about})


def unstated(
    topic: str, absent: list[str] | None = None, only: dict[str, int] | None = None
) -> Finding:
    """The paper does not say it: words that would do so are absent, or a symbol occurs here only.

    Args:
        topic: What is not said.
        absent: Words that the paper does not contain.
        only: Symbols that occur nowhere else, with the number of times that they occur.
    """
    if not absent and not only:
        raise ValueError(f"unstated {topic!r} needs words that are absent, or symbols to count")
    words = ", ".join(f'"{word}"' for word in absent or ())
    return Finding(UNCHECKABLE, {"topic": topic, "absent": words, **(only or {})})


def register(entry: int) -> Finding:
    """The readings register has an entry for it, because the words allow more than one reading."""
    text = project_path("book/readings.md").read_text()
    found = re.search(rf"\(reading-r{entry}\)=\n## (.+?)\n(.*?)(?=\n\(reading-r|\Z)", text, re.S)
    if not found or "**Choice.**" not in found[2]:
        raise ValueError(f"book/readings.md has no entry R{entry} with a choice")
    title = found[1].partition(": ")[2]
    return Finding(UNCHECKABLE, {"entry": f"R{entry}", "title": title})


def several_readings(readings: list[str]) -> Finding:
    """The words allow these readings, and nothing in the paper decides between them."""
    if len(readings) < 2:
        raise ValueError(f"several readings are needed, got {readings}")
    listed = "; ".join(f"({'abcdefgh'[i]}) {text}" for i, text in enumerate(readings))
    return Finding(UNCHECKABLE, {"count": len(readings), "readings": listed})


def setting(name: str, value: str | float) -> Finding:
    """It is the default of the book's training settings."""
    built = getattr(TrainConfig(), name)
    return decide(built == value, name=name, value=built)


def _rows(table: int) -> list[PaperRow]:
    return [row for row in PAPER_ROWS if row.table == table]


def sorted_by_parameters() -> Finding:
    """From left to right in Tables 1 and 3, the printed parameters fall."""
    falls = all(
        float(first.parameters) > float(second.parameters)
        for table in (2, 4)
        for first, second in pairwise(_rows(table))
    )
    order = tuple(row.model for row in _rows(2)) == ARCHITECTURE_COLUMNS
    return decide(falls and order, order=", ".join(row.title for row in _rows(2)))


def margins(than: str, videos: dict[int, int]) -> Finding:
    """The printed margins over a model, beside what chance does on one test set.

    Args:
        than: Name of the model.
        videos: Number of test videos of an official split, by table.
    """
    values: dict[str, float] = {}
    for table, count in videos.items():
        accuracy = {row.model: float(row.accuracy) / 100 for row in _rows(table)}
        variance = sum(accuracy[m] * (1 - accuracy[m]) / count for m in ("hst", than))
        values[f"margin_{table}"] = 100 * (accuracy["hst"] - accuracy[than])
        values[f"chance_{table}"] = 100 * NORMAL_QUANTILE * math.sqrt(variance)
        values[f"videos_{table}"] = count
    return Finding(UNCHECKABLE, values)


def shares_of_parameters(of: list[str]) -> Finding:
    """HST has the fewest printed parameters in both tables; the shares of these models."""
    values: dict[str, float] = {}
    fewest = []
    for table in (2, 4):
        counts = {row.model: float(row.parameters) for row in _rows(table)}
        fewest.append(min(counts, key=counts.__getitem__))
        values |= {f"{model}_{table}": counts["hst"] / counts[model] for model in of}
    return decide(fewest == ["hst", "hst"], **values)


def nearly_equal_data_sets() -> Finding:
    """The printed accuracies of the two data sets, model by model."""
    pairs = zip(_rows(2), _rows(4), strict=True)
    gaps = {second.title: float(second.accuracy) - float(first.accuracy) for first, second in pairs}
    largest = max(abs(gap) for gap in gaps.values())
    lower = [title for title, gap in gaps.items() if gap < 0]
    values = {"largest": largest, "lower": " and ".join(lower), "models": len(gaps)}
    return Finding(UNCHECKABLE, values)


def decimals() -> Finding:
    """How many decimals the printed figures have; fewer leave room for more networks."""
    figures = [f for row in PAPER_ROWS for f in (row.parameters, row.accuracy)]
    digits = sorted({len(figure.partition(".")[2]) for figure in figures})
    coarse = [row for row in PAPER_ROWS if len(row.parameters.partition(".")[2]) == digits[0]]
    values = {"digits": " or ".join(map(str, digits)), "coarse": len(coarse)}
    return Finding(UNCHECKABLE, values | {"rounding": 10.0 ** -digits[0] / 2})


def controlled_pairs(differ: str, same: list[str]) -> Finding:
    """Two rows of Tables 2 and 4 differ in one property and are equal in others.

    With such a pair the effect of the property could be read from the tables; without one it
    cannot be checked.
    """
    pairs = [
        (a, b)
        for a, b in combinations(PAPER_ROWS, 2)
        if getattr(a, differ) != getattr(b, differ)
        and all(getattr(a, name) == getattr(b, name) for name in same)
    ]
    if pairs:
        raise ValueError(f"{len(pairs)} pairs of rows differ in {differ} only; compare them")
    return Finding(UNCHECKABLE, {"rows": len(PAPER_ROWS), "pairs": 0})


def not_in_tables(models: list[str]) -> Finding:
    """The models of the sentence are no rows of Tables 2 and 4, so nothing tests it."""
    titles = {row.title for row in PAPER_ROWS}
    present = titles & set(models)
    if present:
        raise ValueError(f"{min(present)} is a row of Tables 2 and 4; use another predicate")
    return Finding(UNCHECKABLE, {"models": ", ".join(models), "rows": len(PAPER_ROWS)})


def layer_sizes(text: list[int], table: int) -> Finding:
    """The text gives a backbone the units per stage that its table prints."""
    cells = [row[-1] for row in ARCHITECTURE[table] if "three stages" in row[-1]]
    printed = [int(re.search(r"\] x(\d)", cell)[1]) for cell in cells]
    values = {"text": "-".join(map(str, text)), "table": "-".join(map(str, printed))}
    return decide(text == printed, **values, text_sum=sum(text), table_sum=sum(printed))


def name_counts_units(text: list[int], name: int) -> Finding:
    """The number in a backbone's name is the sum of the units that the text gives."""
    return decide(sum(text) == name, units=" + ".join(map(str, text)), total=sum(text))


def published_stages(work: str, text: list[int]) -> Finding:
    """The text's units per stage are those of the cited network of that name."""
    published = load_citations().works[work].facts["stages"]
    return decide("-".join(map(str, text)) == published, published=published)


def cells_of(column: str, containing: str, table: int = 1) -> Finding:
    """No cell of a column contains this."""
    place = 1 + ARCHITECTURE_COLUMNS.index(column)
    cells = [row[place] for row in ARCHITECTURE[table]]
    found = [cell for cell in cells if containing in cell]
    return decide(not found, found=len(found), cells=len(cells), containing=containing)


def stem_sizes() -> Finding:
    """The first row of Table 1 is labelled with the size that its layers produce."""
    (label, *cells), *_ = ARCHITECTURE[1]
    size = int(label.split(" x ")[0])
    halving = [cell for cell in cells if "stride 2" in cell]
    return decide(not halving, label=size, built=size // 2, columns=len(halving), all=len(cells))


def r3d_sizes() -> Finding:
    """The stem of R3D, two steps of stride 2, produces the size of the first stage's row."""
    rows, place = ARCHITECTURE[1], 1 + ARCHITECTURE_COLUMNS.index("r3d")
    size = int(rows[0][0].split(" x ")[0])
    for row in rows[:2]:
        size //= 2 if "stride 2" in row[place] else 1
    label = int(rows[2][0].split(" x ")[0])
    return decide(size == label, built=size, label=label)


def global_pool(kernel: int, size: int) -> Finding:
    """A pooling kernel covers the whole map, as a global pool does."""
    return decide(kernel >= size, covered=kernel**2, positions=size**2)


def same_cells() -> Finding:
    """The cells of Table 3 differ from those of Table 1 in more than the repetitions."""
    first, third = (
        [[re.sub(r" x\d", "", cell) for cell in row] for row in ARCHITECTURE[table]]
        for table in (1, 3)
    )
    cells = sum(len(row) - 1 for row in third)
    equal = sum(
        a == b for one, two in zip(first, third, strict=True) for a, b in zip(one, two, strict=True)
    )
    return decide(first != third, cells=cells, equal=equal - len(third))


def units_with_three_stages() -> Finding:
    """How many units Table 1 prints with "three stages", and how often the book builds each."""
    cells = [row[-1] for row in ARCHITECTURE[1] if "three stages" in row[-1]]
    units = sum(int(re.search(r"\] x(\d)", cell)[1]) for cell in cells)
    return Finding(UNCHECKABLE, {"rows": len(cells), "units": units})


def motions() -> Finding:
    """There is a motion between consecutive frames for each of the flow fields."""
    return decide(NUM_FRAMES - 1 == NUM_FRAMES, frames=NUM_FRAMES, motions=NUM_FRAMES - 1)


def frames_of_video(seconds: int, rate: int) -> Finding:
    """Sixteen frames at the printed rate cover a video of this length; if not, which are taken?"""
    frames = seconds * rate
    values = {"frames": frames, "clip": NUM_FRAMES / rate, "seconds": seconds}
    return Finding(HOLDS if frames <= NUM_FRAMES else UNCHECKABLE, values)


def official_names(names: dict[str, str], misspelt: dict[str, str]) -> Finding:
    """The classes of the figures belong to the data set, in the official spelling.

    Args:
        names: Data set of each class, by its official name.
        misspelt: Official name by the printed one.
    """
    listed = ", ".join(f"{printed} for {official}" for printed, official in misspelt.items())
    return decide(not misspelt, listed=listed, classes=len(names))


def classes_in(dataset: str, names: dict[str, str]) -> Finding:
    """The classes shown belong to this data set."""
    inside = [name for name, owner in names.items() if owner == dataset]
    owners = ", ".join(sorted(set(names.values())))
    return decide(len(inside) == len(names), inside=len(inside), classes=len(names), owners=owners)


def short_names(names: list[str], most: int) -> Finding:
    """The names of the classes are no longer than this number of words."""
    lengths = [len(name.split("_")) for name in names]
    return decide(max(lengths) <= most, listed=", ".join(names), longest=max(lengths))
