"""Figures and the sweep's report, drawn from small logs in the real schema."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.main import get_command

from cli.sweep_report import write_report
from experiment_manager.table import collect_table
from moonjelly.errors import MoonjellyError
from moonjelly.repository import load_zoo
from moonjelly.types import Outcome
from plots import adaptation, bursts, latency_cdf, outcomes, policies, profile, stages, style, sweep
from plots.app import app
from plots.frames import LogError, find_run, read_links, read_run, read_server
from tests.support.logs import VARIANTS, record, write_run, write_sweep

OK, LATE, LOST, SKIPPED = Outcome.ON_TIME, Outcome.LATE, Outcome.LOST, Outcome.SKIPPED


@pytest.fixture
def run(tmp_path: Path) -> Path:
    clients = {0: [OK] * 20 + [LATE, LOST] + [OK] * 5, 1: [SKIPPED] * 3 + [OK] * 24}
    write_run(tmp_path / "run", clients, record=record("run", "multiset", "slo-75_fps-15", 2, 0))
    return tmp_path / "run"


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(write_sweep(tmp_path / "sweep"))


def labels(figure: Figure) -> list[str]:
    return [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]


def test_a_picture_is_written_as_pdf_and_png(run: Path, tmp_path: Path) -> None:
    pdf, png = style.save(latency_cdf.draw(read_run(run)), tmp_path / "new" / "figure")
    assert pdf.read_bytes().startswith(b"%PDF")
    picture = cv2.imread(str(png))
    assert picture is not None
    assert picture.std() > 5


def test_lines_differ_without_colour() -> None:
    count = len(style.COLOURS)
    assert len({(str(style.series(index)["linestyle"])) for index in range(count)}) == count
    assert len(set(style.MARKERS[:count])) == len(set(style.HATCHES[:count])) == count


def test_adaptation_shows_link_estimate_variants_and_misses(run: Path) -> None:
    made = adaptation.draw(read_run(run), VARIANTS, read_links(run))
    left, right = made.axes[0], made.axes[2]
    assert {line.get_label() for line in left.get_lines()} == {"bandwidth estimate", "miss"}
    assert {line.get_label() for line in right.get_lines()} == {"size asked for", "variant used"}
    misses = next(line for line in left.get_lines() if line.get_label() == "miss")
    assert len(misses.get_xdata()) == 2
    assert "client 0: SLO 100 ms, 2 misses" in left.get_title(loc="left")
    assert [text.get_text() for text in made.legends[0].get_texts()].count("miss") == 1
    assert left.get_ylabel() == "Mbit/s"


def test_latency_distributions_end_at_one(run: Path) -> None:
    plot = latency_cdf.draw(read_run(run)).axes[0]
    ends = [line.get_ydata()[-1] for line in plot.get_lines() if str(line.get_label()).startswith("client")]
    assert ends == [1.0, 1.0]
    shares = latency_cdf.draw_shares({"one": pd.concat(read_run(run).values())}).axes[0].get_lines()[0]
    assert max(shares.get_xdata()) == pytest.approx(1.3)


def test_outcomes_add_up_to_the_misses(run: Path) -> None:
    plot = outcomes.draw(read_run(run)).axes[0]
    heights = [sum(patch.get_height() for patch in list(bars)) for bars in zip(*plot.containers, strict=True)]
    assert heights == pytest.approx([100 * 2 / 27, 100 * 3 / 27])


def test_bursts_are_runs_of_misses_in_order_of_capture(run: Path) -> None:
    clients = read_run(run)
    assert bursts.lengths(clients[0]) == [2]
    assert bursts.lengths(clients[1]) == [3]
    both, captured = bursts.of_clients(clients.values())
    assert (sorted(both), captured) == ([2, 3], 54)
    line = bursts.draw({"all": both, "none": []}, {"all": captured, "none": 54}).axes[0].get_lines()[0]
    assert list(line.get_ydata()) == pytest.approx([100 * 5 / 54, 100 * 5 / 54, 100 * 3 / 54, 0.0])


def test_stages_count_answered_frames_only(run: Path) -> None:
    frames = read_server(run)
    assert set(frames["outcome"]) == {"ON_TIME", "LATE"}
    made = stages.draw({"a": frames, "b": frames})
    assert [text.get_text() for text in made.legends[0].get_texts()] == list(stages.STAGES)
    widths = [container[0].get_width() for container in made.axes[0].containers]
    assert sum(widths) == pytest.approx(sum(float(frames[column].mean()) for column in stages.STAGES.values()))


def test_the_sweeps_figure_has_a_column_per_setting_and_intervals(table: pd.DataFrame) -> None:
    made = sweep.draw(table)
    titles = [axes.get_title() for axes in made.axes if axes.get_title()]
    assert titles == ["SLO 75 ms, 15 fps", "SLO 150 ms, 15 fps"]
    assert "missed frames, %" in labels(made)
    assert len(made.axes[0].containers) == 2, "an error bar per policy"


def test_intervals_end_where_no_value_can_be() -> None:
    """Two repetitions that differ have an interval of more than their whole range."""
    runs = papers_sweep().query("repetition < 2 and setting == 'slo-75_fps-15'")
    runs = runs.assign(miss_rate=0.25 * runs["repetition"], effective_f1=0.9 - 0.25 * runs["repetition"])
    upper, lower = sweep.draw(runs).axes
    assert -0.1 < upper.get_ylim()[0] < upper.get_ylim()[1] < 1.1
    assert lower.get_ylim()[1] < 110.0
    (policies_only,) = policies.draw(runs.assign(effective_accuracy=runs["effective_f1"])).axes
    assert policies_only.get_xlim()[1] < 110.0
    assert policies_only.get_ylim()[1] < 1.1


def test_counts_stay_whole_beside_a_run_without_figures(tmp_path: Path) -> None:
    text = write_sweep(tmp_path).read_text()
    assert ",failed,the server <was> gone," in text
    assert ",all,,,41,41,40,1,0,0,0,0,0,1," in text
    assert collect_table(tmp_path)["late"].dtype == pd.read_parquet(tmp_path / "runs.parquet")["late"].dtype == "Int64"


def papers_sweep() -> pd.DataFrame:
    """The paper's whole matrix over two policies and two sources whose quality differs, misses up to 9 %."""
    axes = itertools.product(("multiset", "sa-dp"), ("near", "far"), (75, 100, 150), (15, 25), (1, 2, 4, 8), range(3))
    rows = [
        {
            "client": "all", "state": "done", "trace": "synthetic_trace", "policy": policy, "source": source,
            "setting": f"slo-{slo}_fps-{fps}", "clients": count, "repetition": repetition,
            "miss_rate": 0.01 * count * (fps == 25) * 75 / slo + 0.001 * repetition,
            "effective_f1": (0.8 if source == "near" else 0.2) + 0.001 * repetition,
        }
        for policy, source, slo, fps, count, repetition in axes
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_papers_sweep_shows_every_point_and_no_text_over_another() -> None:
    made = sweep.draw(papers_sweep())
    made.canvas.draw()
    titles = [axes.title for axes in made.axes if axes.get_title()]
    assert [title.get_text() for title in titles] == [
        f"SLO {slo} ms, {fps} fps" for fps in (15, 25) for slo in (75, 100, 150)
    ]
    ticks = [label for axes in made.axes for label in axes.get_xticklabels()]
    boxes = [text.get_window_extent() for text in (*titles, *ticks) if text.get_text()]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    for axes in made.axes:
        _, top = axes.get_ylim()
        assert max(max(line.get_ydata()) for line in axes.get_lines()) <= top
    assert len({axes.get_ylim() for axes in made.axes}) == 2, "panels of a kind share their scale"
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["multiset", "sa-dp"]


def test_an_interval_is_over_repetitions_not_over_sources() -> None:
    means = sweep.per_repetition(
        papers_sweep().query("policy == 'multiset' and setting == 'slo-75_fps-15'"), "effective_f1"
    )
    assert means.loc[4].tolist() == pytest.approx([0.500, 0.501, 0.502])


def test_a_trace_file_names_its_figure(tmp_path: Path) -> None:
    runs = papers_sweep().assign(trace="/data/night runs/lte-1.5.up")
    runs.to_csv(tmp_path / "runs.csv")
    app(["fig8", str(tmp_path), "--out", str(tmp_path)], standalone_mode=False)
    assert {path.name for path in tmp_path.glob("fig_8*")} == {"fig_8_lte-1.5.up.pdf", "fig_8_lte-1.5.up.png"}


def test_the_warm_up_is_not_drawn(tmp_path: Path) -> None:
    told = record("run", "multiset", "slo-75_fps-15", 1, 0)
    told["conditions"]["warmup_s"] = 0.6
    write_run(tmp_path, {0: [LOST] * 5 + [LATE] * 5 + [OK] * 20}, record=told)
    (frames,) = read_run(tmp_path).values()
    assert set(frames["outcome"]) == {"ON_TIME"}
    assert frames["seconds"].iloc[0] == pytest.approx(0.06)
    assert read_server(tmp_path)["frame_id"].tolist() == frames["frame_id"].tolist()


def test_the_servers_sessions_are_drawn_as_the_clients_that_they_were(run: Path) -> None:
    frames = read_server(run)
    ends = frames.groupby("client")["outcome"].value_counts()
    assert ends["client 0"].to_dict() == {"ON_TIME": 25, "LATE": 1}
    assert ends["client 1"].to_dict() == {"ON_TIME": 24}
    (run / "logs" / "client" / "host_0" / "client.json").unlink()
    assert set(read_server(run)["client"]) == {"client 1", "session 10"}


def test_ticks_that_are_few_and_do_not_meet() -> None:
    made, axes = style.figure(1, 2)
    for plot, highest in zip(axes[0], (90.0, 60_000.0), strict=True):
        plot.plot([1.5, highest], [1, 2])
        plot.set_xscale("log")
        style.plain_log_ticks(plot.xaxis)
    made.canvas.draw()
    words = [[label.get_text() for label in plot.get_xticklabels() if label.get_text()] for plot in axes[0]]
    assert {"2", "5", "20"} <= set(words[0])
    assert "5" not in words[1]
    assert {"10", "1000"} <= set(words[1])
    assert style.spread(3, 8) == [0, 1, 2]
    assert style.spread(16, 8)[-1] == 15


def test_policies_are_compared_on_the_runs_that_all_have(table: pd.DataFrame) -> None:
    whole = sweep.finished(table)
    compared = policies.compared(whole)
    assert sorted(set(compared["system"])) == ["multiset", "sa-dp"]
    odd = whole[~((whole["policy"] == "sa-dp") & (whole["setting"] == "slo-75_fps-15"))]
    only = policies.compared(odd)
    same = odd[(odd["setting"] == "slo-150_fps-15") & (odd["policy"] == "multiset")]
    assert only[only["system"] == "multiset"]["miss_rate"].tolist() == pytest.approx(same["miss_rate"].tolist())
    assert labels(policies.draw(table))[0] == "missed frames, %"


def test_a_profile_has_a_line_per_variant(tmp_path: Path) -> None:
    zoo = load_zoo("yolov4")
    made = profile.draw(zoo.profile(zoo.kinds()[0]))
    assert {"accuracy", "p99 latency, ms", "throughput, frames/s"} <= set(labels(made))
    style.save(made, tmp_path / "profile")


@pytest.mark.parametrize("ends", [[OK], [LOST] * 30])
def test_a_run_with_next_to_nothing_in_it_is_drawn(tmp_path: Path, ends: list[Outcome]) -> None:
    write_run(tmp_path, {0: ends}, record=record("run", "multiset", "slo-75_fps-15", 1, 0))
    for figure in ("fig7", "fig9", "bursts"):
        app([figure, str(tmp_path), "--out", str(tmp_path / "figures")], standalone_mode=False)
    assert len(list((tmp_path / "figures").iterdir())) == 8


def test_a_run_that_ended_in_the_warm_up_is_said(tmp_path: Path) -> None:
    told = record("run", "multiset", "slo-75_fps-15", 1, 0)
    told["conditions"]["warmup_s"] = 60.0
    write_run(tmp_path, {0: [OK] * 5}, record=told)
    for figure in ("fig7", "fig9", "bursts"):
        with pytest.raises(LogError, match="captured a frame after the warm-up"):
            app([figure, str(tmp_path), "--out", str(tmp_path)], standalone_mode=False)


def test_attempts_that_were_given_up_are_not_drawn(run: Path) -> None:
    kept = run / "attempt-0" / "logs" / "client" / "host_7"
    kept.mkdir(parents=True)
    (kept / "frame_stats.csv").write_text((run / "logs" / "client" / "host_0" / "frame_stats.csv").read_text())
    assert sorted(read_run(run)) == [0, 1]


def test_a_log_that_lacks_something_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"no client frame_stats\.csv below"):
        read_run(tmp_path / "nowhere")
    path = run / "logs" / "client" / "host_0" / "frame_stats.csv"
    path.write_text("client_id,frame_id\n0,1\n")
    with pytest.raises(LogError, match=r"host_0/frame_stats\.csv lacks the columns capture_ts, outcome"):
        read_run(run)
    (run / "logs" / "server" / "frame_stats.csv").unlink()
    with pytest.raises(LogError, match=r"server/frame_stats\.csv cannot be read"):
        read_server(run)


@pytest.mark.parametrize("command", ["optimum", "planning-time", "accuracy-misses"])
def test_a_table_that_is_not_the_figures_own_is_refused(command: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    for text, words in (
        (b"a,b\n1,2\n", "lacks the columns"),
        (b"", "cannot be read: No columns"),
        (b"\xff\xfe\x00", "cannot be read: "),
        (None, "cannot be read: No such file or directory; 'moonjelly simulate"),
    ):
        if text is None:
            table.unlink()
        else:
            table.write_bytes(text)
        with pytest.raises(LogError, match=words):
            app([command, str(table), "--out", str(tmp_path)], standalone_mode=False)


def test_a_table_without_a_row_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "compare.csv"
    table.write_text("policy,devices,clients,ratio\n")
    with pytest.raises(LogError, match="has no row; 'moonjelly simulate compare' writes one"):
        app(["optimum", str(table), "--out", str(tmp_path)], standalone_mode=False)


def test_every_command_draws_without_a_warning(run: Path, tmp_path: Path) -> None:
    out, csv = tmp_path / "figures", str(write_sweep(tmp_path / "sweep"))
    for words in (
        ["fig6"],
        ["fig7", str(run)],
        ["fig8", csv, "--total-iter", "1"],
        ["fig9", str(run)],
        ["stages", str(run)],
        ["bursts", str(run)],
        ["policies", csv],
    ):
        app([*words, "--out", str(out)], standalone_mode=False)
    names = ["fig_6", "fig_7", "fig_8_synthetic_trace", "fig_9", "fig_9_misses", "stages", "bursts", "policies"]
    assert {path.name for path in out.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}


def test_a_sweeps_folder_stands_for_its_newest_valid_run(tmp_path: Path) -> None:
    write_sweep(tmp_path / "my sweep")
    (tmp_path / "traces").mkdir()
    (tmp_path / "my sweep" / "synthetic_trace").rename(tmp_path / "elsewhere")
    (tmp_path / "traces" / "synthetic_trace").symlink_to(tmp_path / "elsewhere")
    place = tmp_path / "link"
    place.symlink_to(tmp_path / "traces")
    records = sorted(place.glob("*/*/*/*/run.json"))
    chosen, given_up = records[2], records[1].parent / "attempt-0"
    given_up.mkdir()
    (given_up / "run.json").write_text(records[1].read_text())
    for path in records:
        valid = json.loads(path.read_text())["state"] == "done"
        os.utime(path, (2e9 if path == chosen else 1e9, 2e9 if path == chosen else 1e9 if valid else 3e9))
    os.utime(given_up / "run.json", (3e9, 3e9))
    assert find_run(place) == find_run(place, "synthetic_trace") == chosen.parent
    assert find_run(records[1].parent) == records[1].parent, "a run stands for itself"


def test_no_run_to_draw_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"there is no folder .*nowhere; 'moonjelly experiment run'"):
        find_run(tmp_path / "nowhere")
    write_sweep(tmp_path)
    with pytest.raises(LogError, match=r"no run over wifi_trace .* runs over synthetic_trace: name one with --trace"):
        find_run(tmp_path, "wifi_trace")
    failed = tmp_path / "synthetic_trace" / "sa-dp" / "clients-4_slo-75_fps-15_synthetic"
    with pytest.raises(LogError, match=r"none of the 1 runs below .* has a valid result"):
        find_run(failed)


@pytest.mark.parametrize("number", [7, 8, 9])
def test_jellyfishs_scripts_draw_from_a_folder_of_ones_own(root: Path, tmp_path: Path, number: int) -> None:
    """By a relative path with a blank, through a symbolic link, called from anywhere."""
    write_sweep(tmp_path / "results")
    (tmp_path / "my logs").symlink_to(tmp_path / "results")
    script = root / "plots" / f"fig_{number}" / "run.sh"
    environment = {**os.environ, "log_path": "my logs", "total_iter": "1"}
    done = subprocess.run(
        [script, "--out", "my figures"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "my figures").glob(f"fig_{number}*.pdf"))


def test_the_report_is_one_file_with_everything_in_it(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    page = write_report(tmp_path).read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is fetched from elsewhere"
    assert page.count("data:image/png;base64,") == 6
    assert "9 runs, 8 with a valid result" in page
    assert "the server &lt;was&gt; gone" in page
    table = collect_table(tmp_path)
    mine = table[(table["client"] == "all") & (table["policy"] == "multiset") & (table["clients"] == 2)]
    assert f"{100 * mine['miss_rate'].mean():.2f} ± " in page


def test_a_sweep_without_results_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(MoonjellyError, match="has a valid result"):
        write_report(tmp_path)


def test_a_drop_has_no_latency_to_speak_of() -> None:
    frames = pd.DataFrame(
        {"outcome": ["ON_TIME", "DROPPED", "LATE"], "e2e_latency": [20.0, 900.0, 110.0], "slo_ms": [100.0] * 3}
    )
    (line, *_) = latency_cdf.draw({0: frames}).axes[0].get_lines()
    assert list(np.asarray(line.get_xdata(), float)) == [20.0, 110.0]


def test_figures_go_where_no_source_lies() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    folders = [str(option.default) for command in commands for option in command.params if option.name == "out"]
    assert len(folders) == len(commands)
    assert all(re.fullmatch(r"plots/(out|fig_\d)", folder) for folder in folders), folders
