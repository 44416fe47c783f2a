"""One set of versions serves pip, conda and CI."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name_of(name): version for name, version in pairs}


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def test_every_dependency_is_pinned_within_its_range():
    pinned = constraints()
    for requirement in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]:
        name = name_of(requirement)
        assert name in pinned, f"{name} has no version in constraints.txt"
        assert Requirement(requirement).specifier.contains(pinned[name]), requirement


def test_every_pinned_version_runs_on_the_lowest_python():
    lowest, pinned = PROJECT["requires-python"].removeprefix(">=") + ".0", constraints()
    for package in distributions():
        wanted = package.metadata.get("Requires-Python")
        if pinned.get(name_of(package.name)) == package.version and wanted:
            assert SpecifierSet(wanted).contains(lowest), f"{package.name} {package.version}"


def test_conda_environment_installs_the_project_with_the_same_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip[0] == "--constraint constraints.txt"
    (extras,) = re.findall(r"--editable \.\[(.+)\]", pip[1])
    assert set(extras.split(",")) == set(EXTRAS)


def test_conda_python_satisfies_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python=")]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert version_tuple(python) >= version_tuple(lowest)


def test_the_lock_has_the_pinned_versions_each_with_a_hash():
    lines = (ROOT / "constraints.lock").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    locked = {}
    for line in packages:
        name, version, digest = re.fullmatch(r"(\S+)==(\S+) --hash=sha256:(\w{64})", line).groups()
        locked[name_of(name).replace(".", "-")] = version.removesuffix("+cpu")
    assert len(locked) == len(packages)
    assert locked == {name.replace(".", "-"): v for name, v in constraints().items()}


def test_the_build_backend_is_pinned():
    (backend,) = PYPROJECT["build-system"]["requires"]
    assert backend == f"setuptools=={constraints()['setuptools']}"


def test_hooks_and_actions_are_pinned():
    """A hook is a tool of the environment; an action is named by the hash of its commit."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in hooks} == {"local"}
    assert all(hook["language"] == "system" for r in hooks for hook in r["hooks"])
    for workflow in ROOT.glob(".github/workflows/*.y*ml"):
        for action in re.findall(r"uses:\s*(\S+)", workflow.read_text()):
            assert action.startswith("./") or re.search("@[0-9a-f]{40}$", action), action
