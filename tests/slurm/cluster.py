"""Run a command with a temporary Slurm cluster on this machine, which has one simulated GPU.

    python tests/slurm/cluster.py [--install] COMMAND ...

Needs root and Debian's packages slurm-wlm and munge. Jobs only read /etc/slurm/slurm.conf, so the
configuration is written there and removed at the end. An existing one is never overwritten.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIG = Path("/etc/slurm/slurm.conf")
GPUS = Path("/etc/slurm/gres.conf")
PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

# The node claims more CPUs and memory than it has, so that jobs can request as much as on a real
# cluster. A job in the partition "urgent" preempts one in "train". Slurm requeues the preempted job
# if it was submitted with --requeue, and starts it once its old credential has expired.
TEMPLATE = """\
ClusterName=hst
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
JobRequeue=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=5
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=100000 Gres=gpu:1
PartitionName=train Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


@contextmanager
def cluster(may_install: bool = False) -> Iterator[None]:
    """Start munged, slurmctld and slurmd; at the end cancel all jobs and stop the daemons."""
    prepare_machine(may_install)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hst-slurm-")))
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        stack.enter_context(file(CONFIG, configuration(folder)))
        stack.enter_context(file(GPUS, "Name=gpu File=/dev/null\n"))
        stack.enter_context(munge(folder))
        stack.enter_context(daemon("slurmctld", "-D"))
        stack.enter_context(daemon("slurmd", "-D"))
        try:
            wait_until(lambda: output("sinfo", "-h", "-o", "%T").startswith("idle"), 60)
            stack.callback(cancel_jobs)
            yield
        except BaseException:
            for path in sorted(folder.glob("*.log")):
                print(f"--- {path.name}", *path.read_text().splitlines()[-20:], sep="\n")
            raise


def prepare_machine(may_install: bool) -> None:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if os.getuid():
        sys.exit("only root can start a Slurm that runs jobs")
    if missing and not may_install:
        sys.exit(f"{', '.join(missing)} not installed: apt-get install {' '.join(PACKAGES)}")
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    if CONFIG.exists() or GPUS.exists():
        sys.exit(
            f"{CONFIG} or {GPUS.name} exists; remove it if a killed run of this script left it"
        )


def configuration(folder: Path) -> str:
    return TEMPLATE.format(host=socket.gethostname().partition(".")[0], folder=folder)


@contextmanager
def file(path: Path, text: str) -> Iterator[None]:
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def munge(folder: Path) -> Iterator[None]:
    """Run a separate munged with its own key and socket; the machine's own is not affected."""
    home = folder / "munge"
    home.mkdir(mode=0o700)
    (home / "key").write_bytes(os.urandom(128))
    (home / "key").chmod(0o600)
    files = {"key-file": "key", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
    options = [f"--{option}={home / name}" for option, name in files.items()]
    endpoint = folder / "munge.socket"
    # --force: munged refuses to run as root with files under /tmp.
    with daemon("munged", *options, f"--socket={endpoint}", "--force", "--foreground"):
        wait_until(endpoint.exists, 20)
        yield


@contextmanager
def daemon(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def cancel_jobs() -> None:
    output("scancel", "--user=root")
    wait_until(lambda: not output("squeue", "-h"), 30)


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"gave up after {seconds} s")
        time.sleep(0.2)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--install", action="store_true", help="install missing Debian packages")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with cluster(arguments.install):
        return subprocess.run(arguments.command).returncode


if __name__ == "__main__":
    sys.exit(main())
