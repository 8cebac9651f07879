"""Policies by name, their options, and one that comes in a package of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moonjelly.errors import ConfigError
from moonjelly.planning import DEFAULT_POLICY, Policy, check, create_policy, policy_names
from tests.support.planning import client, problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_every_name_makes_a_policy() -> None:
    assert policy_names()[0] == DEFAULT_POLICY == "multiset"
    for name in policy_names():
        assert isinstance(create_policy(name), Policy)


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown planning policy 'sadp'; known: multiset, sa-dp, exact"):
        create_policy("sadp")


def test_an_unknown_option_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="policy 'multiset' has no option 'evals'; known: evaluations, churn"):
        create_policy("multiset", {"evals": 3})


def test_text_from_a_command_line_becomes_the_options_type() -> None:
    assert create_policy("multiset", {"churn": "0.25", "evaluations": "7"}) == create_policy(
        "multiset", {"churn": 0.25, "evaluations": 7}
    )
    with pytest.raises(ConfigError, match="policy 'multiset', option 'churn' = 'lots'"):
        create_policy("multiset", {"churn": "lots"})


PROJECT = """
[project]
name = "{name}"
version = "1"
[project.entry-points."moonjelly.policies"]
{name} = "{target}"
"""


def install(package: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installer leaves behind: the module on the path, and its metadata beside it."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = into / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(into))
    monkeypatch.syspath_prepend(str(package))


def test_the_example_package_adds_a_policy(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(root / "examples" / "policy_plugin", tmp_path, monkeypatch)
    assert "first-fit" in policy_names()
    one = problem([client(1), client(2, fps=29.97)], 2)
    plan = create_policy("first-fit", {"variant": "1"}).plan(one)
    report = check(one, plan)
    assert report.valid
    assert {assignment.variant for assignment in plan.assignments} == {1}
    assert report.effectiveness == 1.0


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        PROJECT.format(name="broken", target="nowhere:X"),
        encoding="utf-8",
    )
    install(package, tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="planning policy 'broken' cannot be loaded from nowhere:X"):
        create_policy("broken")


def test_a_class_without_plan_is_no_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "hollow.py").write_text("class Hollow: pass\n", encoding="utf-8")
    (package / "pyproject.toml").write_text(
        PROJECT.format(name="hollow", target="hollow:Hollow"),
        encoding="utf-8",
    )
    install(package, tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="policy 'hollow' has no method plan"):
        create_policy("hollow")


def test_options_may_be_written_behind_the_name() -> None:
    assert create_policy("multiset:churn=0.01") == create_policy("multiset", {"churn": 0.01})


def test_options_given_apart_win_over_written_ones() -> None:
    assert create_policy("multiset:churn=0.01", {"churn": 0.02}) == create_policy("multiset", {"churn": 0.02})


@pytest.mark.parametrize(("text", "said"), [("fixed:3", "fixed:key=value"), ("fixed:size=3", "known: variant")])
def test_faulty_written_options_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_policy(text)
