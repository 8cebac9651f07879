"""Traces, their readers, the generator, names, and the pace that they set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from moonjelly.errors import ConfigError, TraceError
from moonjelly.repository import places
from network_shaping import catalogue, generator, traces
from network_shaping.pacing import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, Pacer
from network_shaping.traces import Trace


def text(tmp_path: Path, content: str, name: str = "trace.txt") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


class TestTrace:
    TRACE = Trace.uniform("t", [8e6, 0.0, 4e6])

    def test_it_wraps_around(self) -> None:
        assert [self.TRACE.rate_bps(t) for t in (0.0, 0.99, 1.0, 2.5, 3.0, 301.5)] == [8e6, 8e6, 0.0, 4e6, 8e6, 0.0]

    def test_an_offset_begins_inside(self) -> None:
        moved = self.TRACE.at_offset(2.5)
        assert [moved.rate_bps(t) for t in (0.0, 0.5, 1.5)] == [4e6, 8e6, 0.0]
        assert moved.next_change_s(0.0) == pytest.approx(0.5)
        assert self.TRACE.at_offset(-0.5).rate_bps(0.0) == 4e6

    def test_changes_follow_one_another(self) -> None:
        instants, at = [], 0.0
        for _ in range(7):
            at = self.TRACE.next_change_s(at)
            instants.append(at)
        assert instants == pytest.approx([1, 2, 3, 4, 5, 6, 7])

    def test_a_transfer_crosses_changes_and_outages(self) -> None:
        """4 Mbit of the first half second, an outage of one, 2 Mbit at half the rate."""
        assert self.TRACE.finish_s(0.5, 6e6) == pytest.approx(2.5)

    def test_a_transfer_crosses_cycles(self) -> None:
        assert self.TRACE.finish_s(0.0, 120e6) == pytest.approx(30.0, abs=1.01)
        assert self.TRACE.delivered_bits(self.TRACE.finish_s(0.2, 77e6)) == pytest.approx(77e6 + 1.6e6)

    def test_an_outage_without_end_never_finishes(self) -> None:
        dead = Trace.uniform("dead", [0.0])
        assert dead.finish_s(0.0, 1.0) == math.inf
        assert dead.up_s(0.0) == math.inf

    def test_up_again(self) -> None:
        assert self.TRACE.up_s(1.5) == pytest.approx(2.0)
        assert self.TRACE.up_s(0.5) == 0.5

    def test_figures(self) -> None:
        assert self.TRACE.mean_bps == pytest.approx(4e6)
        assert self.TRACE.interval_s == 1.0

    @pytest.mark.parametrize("rates", [[], [-1.0], [math.inf], [math.nan]])
    def test_impossible_rates_are_errors(self, rates: list[float]) -> None:
        with pytest.raises(TraceError, match="trace 'bad'"):
            Trace.uniform("bad", rates)

    def test_times_that_do_not_increase_are_an_error(self) -> None:
        with pytest.raises(TraceError, match="begin at 0 and increase"):
            Trace("bad", (0.0, 2.0, 2.0), (1.0, 1.0, 1.0), 3.0)

    def test_it_begins_when_it_is_told_to(self) -> None:
        begun = self.TRACE.begun_at(7.25)
        for since_s in (0.0, 0.5, 1.5, 2.25, 4.0):
            assert begun.rate_bps(7.25 + since_s) == self.TRACE.rate_bps(since_s)

    @pytest.mark.parametrize(("rates", "held"), [((4e6, 0.0), 4e6), ((0.0, 0.0, 2e6, 5e6), 2e6), ((0.0,), 0.0)])
    def test_before_it_begins_it_stands_at_its_first_rate_that_is_no_outage(
        self, rates: tuple[float, ...], held: float
    ) -> None:
        before = Trace.uniform("t", rates).held()
        assert {before.rate_bps(second) for second in (0.0, 0.5, 1.0, 700.0)} == {held}


class TestReaders:
    def test_one_value_per_line(self, tmp_path: Path) -> None:
        trace = traces.read(text(tmp_path, "# a comment\n3.6\n\n13.5\n0\n"))
        assert trace.rates_bps == (3.6e6, 13.5e6, 0.0)
        assert trace.duration_s == 3.0

    def test_nyu_mets(self, tmp_path: Path) -> None:
        trace = traces.read(text(tmp_path, "3.97,Mbits/sec\n270,Kbits/sec\n0.00,bits/sec\n", "t.csv"))
        assert trace.rates_bps == pytest.approx((3.97e6, 0.27e6, 0.0))

    def test_time_and_rate(self, tmp_path: Path) -> None:
        trace = traces.read(text(tmp_path, "100.0\t1.5\n100.5\t3\n102.5\t0.25\n"))
        assert trace.starts_s == pytest.approx((0.0, 0.5, 2.5))
        assert trace.rates_bps == (1.5e6, 3e6, 0.25e6)
        assert trace.rate_bps(1.0) == 3e6

    @pytest.mark.parametrize("name", ["t.up", "trace.txt"])
    def test_mahimahi(self, tmp_path: Path, name: str) -> None:
        """1000 packets in the first second, 500 in the second: 12 and 6 Mbit/s."""
        lines = [str(ms) for ms in range(1000)] + [str(1000 + 2 * index) for index in range(501)]
        trace = traces.read(text(tmp_path, "\n".join(lines), name))
        assert trace.rates_bps == pytest.approx((12e6, 6e6), rel=0.01)

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("1.0\n-2.0\n", "line 2: the rate -2.0 is not allowed"),
            ("1.0\nfast\n", "line 2: 'fast' is not a rate"),
            ("1.0\nnan\n", "line 2: the rate nan"),
            ("1,Mbits/sec\n2,furlongs\n", "line 2: unknown unit 'furlongs'"),
            ("1\t2\n1\t3\n", "line 2: time 1 does not come after"),
            ("1\t2\n2\n", "line 2: '2' has 1 columns"),
            ("1\t2\nx\t3\n", "line 2: 'x' is not a time"),
            ("\n# only a comment\n", "is empty"),
        ],
    )
    def test_a_malformed_line_is_named(self, tmp_path: Path, content: str, complaint: str) -> None:
        with pytest.raises(TraceError, match=complaint):
            traces.read(text(tmp_path, content))

    def test_a_mahimahi_file_that_goes_back_in_time(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match="line 3"):
            traces.read(text(tmp_path, "5\n9\n7\n", "t.up"))

    def test_a_missing_or_binary_file(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match="does not exist"):
            traces.read(tmp_path / "none")
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TraceError, match="cannot be read"):
            traces.read(tmp_path / "binary")

    def test_what_is_written_can_be_read(self, tmp_path: Path) -> None:
        trace = generator.generate(generator.PROFILES["subway"], 120, 3)
        traces.write(trace, tmp_path / "t.txt", "subway, seed 3")
        assert traces.read(tmp_path / "t.txt").rates_bps == pytest.approx(trace.rates_bps, abs=501)

    @pytest.mark.parametrize("trace", [generator.synthetic(), Trace("t", (0.0, 0.5, 2.0), (4e6, 0.0, 8e6), 3.0)])
    def test_what_is_written_keeps_its_times(self, tmp_path: Path, trace: Trace) -> None:
        traces.write(trace, tmp_path / "t.txt", "of other steps than a second")
        again = traces.read(tmp_path / "t.txt")
        assert again.duration_s == trace.duration_s
        moments = [0.25 * quarter for quarter in range(int(4 * trace.duration_s))]
        assert [again.rate_bps(at) for at in moments] == [trace.rate_bps(at) for at in moments]

    def test_a_byte_order_mark_is_no_rate(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_text("\ufeff5\n6\n", encoding="utf-8")
        assert traces.read(tmp_path / "t.txt").rates_bps == (5e6, 6e6)


class TestCatalogue:
    def test_every_generated_name_resolves(self) -> None:
        for name in generator.PROFILES:
            assert catalogue.resolve(name, seed=1, seconds=30).duration_s == 30.0

    def test_jellyfish_s_synthetic_trace(self) -> None:
        trace = catalogue.resolve("synthetic_trace")
        assert [trace.rate_bps(10.0 + 20.0 * step) / 1e6 for step in range(7)] == [20, 15, 10, 7.5, 10, 15, 20]
        assert trace.duration_s == 140.0

    def test_a_random_offset_repeats_with_its_seed(self) -> None:
        offsets = {seed: catalogue.resolve("synthetic_trace", seed, offset_s=None).offset_s for seed in (1, 2)}
        assert offsets[1] != offsets[2]
        assert offsets[1] == catalogue.resolve("synthetic_trace", 1, offset_s=None).offset_s

    def test_a_random_offset_may_have_a_seed_of_its_own(self) -> None:
        ours = catalogue.resolve_at("synthetic_trace@random:7", 3, 60)
        assert ours.offset_s == catalogue.resolve_at("synthetic_trace@random", 7, 60).offset_s
        assert ours.offset_s != catalogue.resolve_at("synthetic_trace@random", 3, 60).offset_s
        with pytest.raises(ConfigError, match="random:SEED"):
            catalogue.resolve_at("synthetic_trace@random:x", 3, 60)

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(TraceError, match=r"'wifi' is neither .* wifi-good, lte-city"):
            catalogue.resolve("wifi")

    def test_a_recorded_trace_that_is_not_here_says_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MOONJELLY_DATA", raising=False)
        monkeypatch.setattr(places, "clone_root", lambda: tmp_path / "clone")
        with pytest.raises(TraceError, match=r"trace 'wifi_trace': .* get it with ./download_data.sh"):
            catalogue.resolve("wifi_trace")
        target = tmp_path / "clone" / "data" / "traces" / "jellyfish-wifi.txt"  # where that script puts it
        target.parent.mkdir(parents=True)
        target.write_text("20\n10\n")
        assert catalogue.resolve("wifi_trace").rates_bps == (20e6, 10e6)

    def test_a_random_place_unless_the_trace_says_where(self) -> None:
        assert catalogue.at_random("lte-city") == "lte-city@random"
        assert catalogue.at_random("lte-city", 7) == "lte-city@random:7"
        assert catalogue.at_random("lte-city@12.5", 7) == "lte-city@12.5"

    def test_the_shipped_traces_are_the_generator_s(self) -> None:
        for name, profile in generator.PROFILES.items():
            shipped = traces.read(catalogue.SHIPPED / f"{name}.txt")
            made = generator.generate(profile, catalogue.DEFAULT_SECONDS, 0)
            assert shipped.rates_bps == pytest.approx(made.rates_bps, abs=501)


class TestGenerator:
    """A long trace of every profile against the table that it was fitted to."""

    @pytest.mark.parametrize("name", list(generator.PROFILES))
    def test_statistics(self, name: str) -> None:
        profile = generator.PROFILES[name]
        rates = np.array(generator.generate(profile, 60_000, 5).rates_bps)
        up = rates > 0.0
        logs = np.log(rates[up])
        assert np.exp(np.median(logs)) == pytest.approx(profile.median_bps, rel=0.05)
        assert np.std(logs) == pytest.approx(profile.sigma, rel=0.05)
        both = up[:-1] & up[1:]
        pairs = np.log(rates[:-1][both]), np.log(rates[1:][both])
        assert np.corrcoef(*pairs)[0, 1] == pytest.approx(profile.lag_one, abs=0.03)
        entries = int(np.sum(up[:-1] & ~up[1:]))
        assert entries / 1_000.0 == pytest.approx(profile.outages_per_minute, rel=0.1)
        if entries:
            assert np.sum(~up) / entries == pytest.approx(profile.mean_outage_s, rel=0.1)
        assert rates[up].min() >= generator.FLOOR_BPS

    def test_a_seed_repeats_and_another_does_not(self) -> None:
        profile = generator.PROFILES["lte-city"]
        assert generator.generate(profile, 50, 1) == generator.generate(profile, 50, 1)
        assert generator.generate(profile, 50, 1) != generator.generate(profile, 50, 2)


class TestPacer:
    def test_a_backlog_passes_at_the_trace_s_rate(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6, 2e6]))
        ends = [pacer.reserve(0.0, 100_000) for _ in range(12)]
        assert ends[:10] == pytest.approx([0.1 * (index + 1) for index in range(10)])
        assert ends[10:] == pytest.approx([1.4, 1.8])

    def test_an_idle_link_keeps_no_credit(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6]))
        pacer.reserve(0.0, 1_000)
        assert pacer.reserve(5.0, 100_000) == pytest.approx(5.1)

    def test_a_bucket_passes_at_once_and_refills(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6]), burst_bytes=10_000)
        assert pacer.reserve(1.0, 10_000) == pytest.approx(1.0)
        assert pacer.reserve(1.0, 10_000) == pytest.approx(1.01)
        assert pacer.reserve(2.0, 30_000) == pytest.approx(2.02)

    def test_an_outage_holds_even_the_bucket(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6, 0.0, 8e6]), burst_bytes=10_000)
        assert pacer.reserve(1.5, 1_000) == pytest.approx(2.0)

    def test_what_waits_when_the_trace_changes_goes_first(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6]))
        assert pacer.reserve(10.0, 100_000) == pytest.approx(10.1)
        pacer.follow(Trace.uniform("u", [0.0, 4e6]).begun_at(10.05), 10.05)
        assert pacer.reserve(10.06, 50_000) == pytest.approx(11.05 + 0.1 + 0.1)

    def test_what_was_saved_up_stays_when_the_trace_changes(self) -> None:
        pacer = Pacer(Trace.uniform("t", [8e6]), burst_bytes=10_000)
        pacer.follow(Trace.uniform("u", [4e6]).begun_at(1.0), 1.0)
        assert pacer.reserve(1.0, 10_000) == pytest.approx(1.0)
        assert pacer.reserve(1.0, 10_000) == pytest.approx(1.02)

    def test_chunks_are_a_few_milliseconds(self) -> None:
        assert Pacer(Trace.uniform("t", [8e6])).chunk_bytes(0.0) == 4_000
        assert Pacer(Trace.uniform("t", [0.0])).chunk_bytes(0.0) == MIN_CHUNK_BYTES
        assert Pacer(Trace.uniform("t", [1e9])).chunk_bytes(0.0) == MAX_CHUNK_BYTES
