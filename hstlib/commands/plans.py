"""Commands that check a plan before it costs GPU hours, and compare what its runs gave."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from hstlib.commands.output import say
from hstlib.config import TrainConfig, project_path, project_root
from hstlib.training.plan import Plan, parse_plan, planned_runs, read_plan
from hstlib.training.plan_progress import FINISHED, run_state

Positional = tyro.conf.Positional


def plan(
    action: Positional[Literal["check", "list", "rerun"]],
    file: Positional[Path],
    changes: Positional[tuple[str, ...]] = (),
) -> None:
    """Check a plan, list its runs, or set finished runs aside so that they are made anew.

    Args:
        action: `check` looks at names, values, data, disk and hours, and ends with 1 and a line
            for each problem. `list` prints every run and how far it is. `rerun` moves the folders
            of finished runs to results/earlier, where they are kept.
        file: A plan, such as workflow/params/paper.yaml.
        changes: Changes of the plan for this call, as name=value, the same as after --config of the
            workflow. `dataset` and `model` select from the plan, `split` and `seed` replace the
            plan's, `build` is the folder to write to; any setting of `train` holds for all runs.
    """
    content, overrides = read_plan(file), _parse_changes(changes)
    parsed, runs = parse_plan(content, overrides), planned_runs(content, overrides)
    results = project_path(parsed.build) / "results"
    if action == "check":
        _check(parsed, list(runs.values()), results)
    elif action == "list":
        say(*(_describe_run(run, results) for run in runs.values()))
    else:
        _set_aside(runs.values(), results)


def _parse_changes(changes: Iterable[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r} is not name=value, such as epochs=3")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[name] = value
    return values


def _check(plan: Plan, runs: list[TrainConfig], results: Path) -> None:
    """Print what a plan costs, then its problems; end with 1 if there are any."""
    from hstlib.book.cost import Measurements, describe_cost

    measurements = Measurements.load(project_path("benchmarks/results"))
    say(*describe_cost(runs, measurements).split("\n"))
    say(*(f"not trained: {name}, {reason}" for name, reason in plan.excluded.items()))
    problems = list(_problems_of_runs(runs, results))
    if plan.study and not (project_root() / "notebooks" / f"{plan.study}.ipynb").is_file():
        problems.append(f"study is {plan.study!r}; there is no notebooks/{plan.study}.ipynb")
    problems += _problems_of_data(runs)
    say(*(f"problem: {problem}" for problem in dict.fromkeys(problems)))
    if problems:
        raise SystemExit(1)
    say("no problem found")


def _problems_of_runs(runs: list[TrainConfig], results: Path) -> Iterator[str]:
    """Print how many runs are finished; yield what is wrong with a row or a model."""
    from hstlib.training.experiment import check_model

    states = []
    for run in runs:
        try:
            states.append(run_state(run, results))
        except ValueError as error:
            yield f"{error}; move it away, or set build=<another folder>"
    finished, begun = (sum(state.startswith(s) for state in states) for s in (FINISHED, "begun"))
    say(f"runs in {results}: {finished} finished, {begun} begun, {len(runs)} in all")
    models = {
        (run.model, run.backbone, run.reading, run.num_frames, run.input_size): run for run in runs
    }
    for run in models.values():
        try:
            check_model(run)
        except ValueError as error:
            yield f"{run.run_id}: {error}"


def _problems_of_data(runs: list[TrainConfig]) -> Iterator[str]:
    """Print the size of the clip stores; yield what is wrong with lists, videos and the disk."""
    from hstlib.data.cache import store_root

    needed = 0.0
    lists: dict[tuple, list[TrainConfig]] = {}
    for run in runs:
        lists.setdefault((run.dataset, run.data_dir, run.clip), []).append(run)
    for of_data in lists.values():
        problems, gigabytes = _check_data(of_data)
        yield from problems
        needed += gigabytes or 0
    store = store_root()
    used = sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 1e9
    free = _free_gigabytes(store)
    say(f"disk: {free:.0f} GB are free for {store}, which has {used:.0f} GB")
    if needed > free + used:
        yield (
            f"{store}: the clips need {needed:.0f} GB, {free:.0f} GB are free and {used:.0f} GB in "
            "use; set HST_CACHE to a folder on a larger disk, or choose a smaller size or fewer "
            "clips per video"
        )


def _check_data(runs: list[TrainConfig]) -> tuple[list[str], float | None]:
    """Check the data set of runs that share its videos and clips.

    Returns:
        Problems, and the size of the clips in GB if the number of videos is known.
    """
    from hstlib.book.cost import LISTED_VIDEOS, store_gigabytes
    from hstlib.training.experiment import open_dataset

    first = runs[0]
    name = Path(first.data_dir).name or first.dataset
    problems, videos = [], LISTED_VIDEOS.get(first.dataset)
    for run in {(run.split, run.protocol): run for run in runs}.values():
        try:
            data = open_dataset(run)
        except (ValueError, OSError) as error:
            drawn = first.dataset.startswith("demo-")  # the workflow draws them
            problems += [] if drawn else [f"{name}: {error}"]
            break
        videos = len(data.paths)
        if data.missing:
            problems.append(
                f"{name}: {len(data.missing)} of {videos} videos are missing in {data.folder}"
            )
        if len(data.train) < run.batch_size:
            problems.append(
                f"{name}: batch_size {run.batch_size} is larger than the {len(data.train)} "
                f"training videos of split {run.split}"
            )
    gigabytes = None if videos is None else store_gigabytes(first.clip, videos)
    size = "unknown" if gigabytes is None else f"{gigabytes:.1f} GB, {videos} videos"
    say(f"clips of {name}: {size} (size {first.size}, {first.clips_per_video} per video)")
    return problems, gigabytes


def _free_gigabytes(folder: Path) -> float:
    from shutil import disk_usage

    while not folder.exists():
        folder = folder.parent
    return disk_usage(folder).free / 1e9


def _describe_run(run: TrainConfig, results: Path) -> str:
    from hstlib.book.changes import code_since
    from hstlib.training.rows import ROW, load_row

    try:
        state = run_state(run, results)
    except ValueError as error:
        return f"{run.run_id}  {error}"
    if state.startswith(FINISHED):
        row = load_row(results / run.run_id / ROW)
        state += f"  top-1 {row.test['top1']:.4f}  code: {code_since(row)}"
    return f"{run.run_id}  {state}"


def _set_aside(runs: Iterable[TrainConfig], results: Path) -> None:
    """Move the folders of finished runs to ``earlier``, under a name that is not in use.

    The new run gets a copy of the record, which counts how often the test set was evaluated.
    """
    from shutil import copy2

    from hstlib.files import lock
    from hstlib.training.rows import RECORD, ROW

    for run in runs:
        folder = results / run.run_id
        if not (folder / ROW).is_file():
            say(f"{run.run_id}  not finished")
            continue
        with lock(folder):
            (results / "earlier").mkdir(exist_ok=True)
            names = (results / "earlier" / f"{run.run_id}-{n}" for n in range(1, 10**6))
            target = next(name for name in names if not name.exists())
            folder.rename(target)
            if (target / RECORD).is_file():
                folder.mkdir()
                copy2(target / RECORD, folder)
        say(f"{run.run_id}  kept in {target}")


def compare(results: Positional[Path]) -> None:
    """Compare the models in a folder of results: accuracies, and differences from HST.

    Without HST, every pair is compared. Intervals are 95 % intervals over sources of test videos
    and seeds; p-values are corrected for all comparisons on a data set by Holm's procedure. A model
    whose training accuracy is below 95 % in its last epoch is not fitted and gets no verdict.

    Args:
        results: Folder of runs, or of published rows.
    """
    from hstlib.book.compare import compare_rows
    from hstlib.training.rows import load_rows

    rows = load_rows(results.expanduser())
    if not rows:
        raise ValueError(f"{results} has no result rows; name a folder of finished runs")
    for comparison in compare_rows(rows):
        say(comparison.dataset)
        for table in (comparison.models, comparison.differences):
            if len(table):
                say(*table.to_string().split("\n"), "")
        say(*comparison.no_network, *(f"left out: {line}" for line in comparison.left_out))
