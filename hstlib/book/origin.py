"""Where the numbers of a page come from: its rows, and digests of the files that it read."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from hstlib.book.paper import DATASET_TITLES
from hstlib.config import project_path, project_root
from hstlib.training.identity import SAME_RUN
from hstlib.training.rows import ROW, Row

STAMP = re.compile(r"(?m)^read (\S+), sha256 ([0-9a-f]{12})$")
"""A line of :func:`describe_inputs`: path from the project root, and digest."""
NOT_RECORDED = "not recorded"
OWN = {*SAME_RUN, "dataset", "protocol", "variant", "model", "reading", "split", "seed"}
"""Settings that have a column of their own, or differ between the runs of one comparison."""
SHOWN = 3
"""Most values of one setting that are listed; of more, the first, the last and their number."""


def provenance(rows: Iterable[Row]) -> pd.DataFrame:
    """Say what rows were measured on, with what, when and at what cost.

    Args:
        rows: Finished runs.

    Returns:
        A row per fact and a column per data set, protocol and variant, as text. Old rows lack some
        facts, which are "not recorded".
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    facts = {title: _facts(groups[title]) for title in sorted(groups)}
    return pd.DataFrame(facts).rename_axis("fact")


def _group(row: Row) -> str:
    config = row.config
    name = DATASET_TITLES.get(config.dataset) or Path(config.data_dir).name or config.dataset
    return ", ".join(part for part in (name, config.protocol, config.variant) if part)


def _facts(rows: Sequence[Row]) -> dict[str, str]:
    seconds = sum(row.seconds for row in rows)
    return {
        "runs": str(len(rows)),
        "models": _list(f"{row.config.model} ({row.config.reading})" for row in rows),
        "splits": _list(row.config.split for row in rows),
        "seeds": _list(row.config.seed for row in rows),
        "lists (hash)": _list(row.split_id for row in rows),
        "training videos (hash)": _list(row.train_contents for row in rows),
        "test videos (hash)": _list(row.test_contents for row in rows),
        "settings": _settings(rows),
        "commits": _list(row.commit[:9] + "+" * row.dirty for row in rows),
        "hardware": _list(_hardware(row) for row in rows),
        "software": _list(_software(row) for row in rows),
        "finished": _list(row.finished[:10] for row in rows),
        "seconds, sum": f"{seconds:.0f}",
        "hours, sum": f"{seconds / 3600:.2f}",
    }


def _list(values: Iterable[object]) -> str:
    """List different values in order; of many, the first, the last and their number."""
    texts = [str(value) for value in sorted(set(values))]
    texts = [text or NOT_RECORDED for text in texts]
    if len(texts) <= SHOWN:
        return ", ".join(texts)
    return f"{texts[0]} to {texts[-1]}, {len(texts)} in all"


def _settings(rows: Sequence[Row]) -> str:
    """Name the settings that differ from their defaults in any run."""
    values: dict[str, set[object]] = {}
    for row in rows:
        for name, value in row.config.model_dump(exclude=OWN).items():
            values.setdefault(name, set()).add(value)
    defaults = type(rows[0].config).model_fields
    changed = {
        name: found for name, found in sorted(values.items()) if found != {defaults[name].default}
    }
    return "; ".join(f"{name} {_list(found)}" for name, found in changed.items()) or "defaults"


def _hardware(row: Row) -> str:
    environment = row.environment
    parts = (environment.get("device"), environment.get("machine"))
    threads = f"threads: {environment['threads']}" if "threads" in environment else None
    return " ".join(part for part in (*parts, threads) if part)


def _software(row: Row) -> str:
    versions = [f"hstlib {row.version}"] if row.version else []
    return " ".join([*versions, f"torch {row.environment.get('torch', '?')}"])


def measured_with(*paths: str | Path) -> pd.DataFrame:
    """Say with what benchmark files were measured.

    Args:
        paths: JSON files of ``benchmarks/results``; relative ones start at the project root.

    Returns:
        A row per file: digest, and hardware, software, commit and seconds of processor time, as
        text. What a file does not say is "not recorded".
    """
    table = {}
    for path in map(project_path, paths):
        content = json.loads(path.read_text())
        threads = f", threads: {content['cpu_threads']}" if "cpu_threads" in content else ""
        hardware, _, software = content.get("hardware", "").partition("; ")
        torch = f"torch {content['torch']}" if "torch" in content else ""
        facts = {
            "sha256": digest(path),
            "hardware": f"{hardware}{threads}",
            "software": software or torch,
            "commit": content.get("commit", ""),
            "processor seconds": str(content.get("processor_seconds", "")),
        }
        table[path.stem] = {name: fact or NOT_RECORDED for name, fact in facts.items()}
    return pd.DataFrame.from_dict(table, "index").rename_axis("measurement")


def digest(path: Path) -> str:
    """Return the first 12 digits of the SHA-256 of a file, or of a folder's rows.

    Args:
        path: File, or folder as :func:`hstlib.training.rows.load_rows` reads it.

    Raises:
        ValueError: If there is no such file or folder.
    """
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if not path.is_dir():
        raise ValueError(f"there is no {path}, which a page of the book reads")
    files = sorted([*path.glob("*.jsonl"), *path.glob(f"*/{ROW}")])
    contents = [f"{file.relative_to(path).as_posix()} {digest(file)}" for file in files]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]


def describe_inputs(*paths: str | Path) -> str:
    """Return a line per file or folder that a page reads, with its digest.

    The build of the book fails if a stored output has another digest than the file has then.

    Args:
        paths: Files, or folders of rows; relative ones start at the project root.
    """
    lines = []
    for path in map(project_path, paths):
        inside = path.is_relative_to(project_root())
        name = path.relative_to(project_root()).as_posix() if inside else path.as_posix()
        lines.append(f"read {name}, sha256 {digest(path)}")
    return "\n".join(lines)


def stale_inputs(output: str) -> list[str]:
    """Return what is wrong with the digests in a stored output, one line each.

    Args:
        output: Printed text of a notebook.
    """
    faults = []
    for name, stored in STAMP.findall(output):
        try:
            current = digest(project_path(name))
        except ValueError as error:
            faults.append(str(error))
            continue
        if current != stored:
            faults.append(f"{name} has sha256 {current}; the stored output was made of {stored}")
    return faults
