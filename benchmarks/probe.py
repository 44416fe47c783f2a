"""Probe trained checkpoints: how much of their accuracy is motion and how much appearance.

One row per checkpoint and probe, with the accuracies without a network on the same videos.
"""

from pathlib import Path

from common import RESULTS, argument_parser, write

from hstlib.commands.probe import probe_report, report_lines

SHARED = ("run_id", "checkpoint", "dataset", "split", "protocol", "split_id", "seed", "chance")


def main() -> None:
    """Measure and write the results."""
    parser = argument_parser(__doc__, RESULTS / "probe.json")
    parser.add_argument("checkpoints", nargs="+", type=Path, help="files written by train")
    parser.add_argument("--dataset", default="jhmdb", help="data set to test on")
    parser.add_argument("--data-dir", default="", help="its folder; default: as in training")
    options = parser.parse_args()
    runs, rows = [], []
    for checkpoint in options.checkpoints:
        report = probe_report(checkpoint, options.dataset, options.data_dir)
        print(*report_lines(report), sep="\n")
        runs.append({key: report[key] for key in (*SHARED, "videos", "sources")})
        rows += [{"run_id": report["run_id"], **row} for row in report["rows"]]
    write(options.out, {"runs": runs, "rows": rows})


if __name__ == "__main__":
    main()
