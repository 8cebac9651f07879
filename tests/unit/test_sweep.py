"""Sweeps expand to runs with stable names; hosts files and Jellyfish's client lines say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment_manager.client_lines import read_client_lines, read_configurations
from experiment_manager.hosts import Hosts, read_hosts
from experiment_manager.sweep import Device, Mix, Sweep, conditions, duration_s, expand, read_sweep, share, slug
from moonjelly.errors import ConfigError


def test_the_matrix_of_the_paper() -> None:
    runs = expand(Sweep(sources=("a.mp4", "b.mp4", "c.mp4")))
    assert len(runs) == 4 * 3 * 2 * 3 * 3
    assert len({run.name for run in runs}) == len(runs)


def test_names_do_not_depend_on_the_rest_of_the_sweep() -> None:
    one = expand(Sweep(clients=(4,), slo_ms=(100.0,), fps=(15.0,), repetitions=1))
    many = {run.name for run in expand(Sweep())}
    assert {run.name for run in one} <= many


def test_repetitions_come_last_to_finish() -> None:
    assert [run.repetition for run in expand(Sweep(clients=(1,), slo_ms=(75.0,), fps=(15.0,), repetitions=3))] == [
        0,
        1,
        2,
    ]


def test_policies_of_a_repetition_share_a_seed() -> None:
    runs = expand(Sweep(clients=(2,), slo_ms=(75.0,), fps=(15.0,), policies=("multiset", "sa-dp"), repetitions=2))
    assert {(run.repetition, run.seed) for run in runs} == {(0, 0), (1, 1000)}


def test_a_mix_gives_devices_different_goals() -> None:
    mix = Mix(name="var_var", slo_ms=(75.0, 150.0), fps=(12.0, 24.0, 29.97))
    (run,) = expand(Sweep(clients=(4,), slo_ms=(), fps=(), mixes=(mix,), repetitions=1))
    assert [(device.slo_ms, device.fps) for device in run.devices] == [(75, 12), (150, 24), (75, 29.97), (150, 12)]


def test_devices_are_dealt_evenly() -> None:
    (run,) = expand(Sweep(clients=(5,), slo_ms=(75.0,), fps=(15.0,), repetitions=1))
    dealt = share(run.devices, ["left", "right"])
    assert [[device.client_id for device in part] for part in dealt.values()] == [[0, 2, 4], [1, 3]]


def test_a_device_stays_where_it_belongs() -> None:
    devices = (Device(0, 75, 15, "right"), Device(1, 75, 15), Device(2, 75, 15, "right"))
    assert {label: [one.client_id for one in mine] for label, mine in share(devices, ["left", "right"]).items()} == {
        "left": [1],
        "right": [0, 2],
    }
    with pytest.raises(ConfigError, match="device 0 belongs to 'right'; machines: left"):
        share(devices, ["left"])


def test_sources_with_one_stem_would_share_a_folder() -> None:
    with pytest.raises(ConfigError, match="two runs of the sweep have the same name"):
        expand(Sweep(clients=(1,), slo_ms=(75.0,), fps=(15.0,), sources=("a/x.mp4", "b/x.mp4")))


def test_the_paper_takes_a_day() -> None:
    sweep = Sweep(sources=("a", "b", "c"), seconds=300)
    assert 15 < duration_s(sweep, len(expand(sweep))) / 3600 < 24


@pytest.mark.parametrize(
    ("text", "name"), [("synthetic", "synthetic"), ("videos/a b.mp4", "a-b"), ("rtsp://x/live?y", "live-y"), ("/", "x")]
)
def test_slugs_are_paths(text: str, name: str) -> None:
    assert slug(text) == name


def test_the_command_line_s_lists_are_text() -> None:
    sweep = read_sweep(None, {"clients": "1,2", "fps": "29.97", "traces": "lte-city@12,street.txt", "policies": None})
    assert (sweep.clients, sweep.fps, sweep.traces) == ((1, 2), (29.97,), ("lte-city@12", "street.txt"))
    assert sweep.policies == Sweep().policies


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"clients": ["0"]}, "clients.0"),
        ({"clients": "1,two"}, r"'clients.1' = 'two'"),
        ({"clients": ""}, "'clients' = "),
        ({"slo_ms": ["-1"]}, "slo_ms.0"),
        ({"seconds": 0}, "seconds"),
        ({"shaping": "magic"}, "'tc', 'relay' or 'none'"),
        ({"latency_ms": 0.5}, r"'latency_ms' = 0\.5: .* greater than or equal to 1"),
        ({"latency_ms": 50, "queue_bytes": 9000}, "a queue of 9000 bytes and one of 50 ms .* not both"),
        ({"latency_ms": 50, "shaping": "relay"}, r"latency_ms = 50\.0 is given, but links with shaping = 'relay'"),
        ({"burst_bytes": 5000, "shaping": "none"}, "burst_bytes = 5000 is given, but links with shaping = 'none'"),
        ({"polices": ["x"]}, "unknown key 'polices'; known keys: burst_bytes, clients"),
    ],
)
def test_an_impossible_sweep_is_named(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_sweep(None, overrides)


def test_what_is_said_of_the_links_goes_to_the_shaper_and_into_the_conditions() -> None:
    sweep = read_sweep(None, {"latency_ms": 50, "burst_bytes": 1_500_000})
    assert sweep.link_options == {"burst_bytes": 1_500_000, "latency_ms": 50.0}
    assert conditions(sweep).items() >= {"burst_bytes": 1_500_000, "queue_bytes": None, "latency_ms": 50.0}.items()
    assert read_sweep(None, {"burst_bytes": 5000, "shaping": "relay"}).link_options == {"burst_bytes": 5000}


HOSTS = """
[server]
host = "10.0.0.1"
[[clients]]
host = "10.0.0.2"
name = "left"
interface = "eth1"
"""


def test_a_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    hosts = read_hosts(path)
    assert [machine.label for machine in hosts.machines] == ["10.0.0.1", "left"]
    assert hosts.clients[0].port == 22


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('host = "10.0.0.1"', "server.host"),
        ("[[clients]]", "clients"),
        ('name = "left"', r"unknown key 'clients\.0\.nme'; known keys: host, interface, name, port"),
    ],
)
def test_a_faulty_hosts_file_names_the_key(tmp_path: Path, change: str, said: str) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS.replace(change, {"[[clients]]": "[other]", 'name = "left"': 'nme = "left"'}.get(change, "")))
    with pytest.raises(ConfigError, match=said):
        read_hosts(path)


def test_a_missing_hosts_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        read_hosts(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[[clients]]\nhost = "10.0.0.3"\nname = "left"', "two client machines are called 'left'"),
        ('[[clients]]\nhost = "10.0.0.2"\nname = "right"', r"10\.0\.0\.2:22 is listed twice"),
    ],
)
def test_a_hosts_file_with_a_duplicate_is_refused(tmp_path: Path, more: str, said: str) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS + more)
    with pytest.raises(ConfigError, match=said):
        read_hosts(path)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    return read_hosts(path)


def test_client_lines_of_jellyfish() -> None:
    lines = read_client_lines(
        "# id host port iface user root slo fps\nhost_0 10.0.0.2 22 eth0 me /home/me/x 75 15\n\n1 h 22 e u r 100 29.97"
    )
    assert [(line.host_id, line.slo_ms, line.fps) for line in lines] == [(0, 75, 15), (1, 100, 29.97)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 host 22", "line 1 has 3 fields"),
        ("0 h 22 e u r -5 15", "line 1: 'slo_ms'"),
        ("#", "no client"),
        ("host_x h 22 e u r 75 15", "line 1: 'host_id'"),
        ("0 h 22 e u r 75 15\nhost_0 h 22 e u r 75 15", "line 2: host id 0 is used twice"),
    ],
)
def test_faulty_client_lines(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_client_lines(text)


TEMPLATE = "host_{} client_ip client_ssh_port client_network_iface client_username /home/client_username/x/ {} {}\n"


def test_a_templates_words_stand_for_the_client_machine(tmp_path: Path, hosts: Hosts) -> None:
    (tmp_path / "client_cfg_template_2_15_100.txt").write_text(
        TEMPLATE.format(0, 100, 15) + TEMPLATE.format(1, 100, 15)
    )
    machines, (fleet,) = read_configurations([tmp_path], hosts)
    assert machines.clients == hosts.clients
    assert fleet.setting == "slo-100_fps-15"
    assert [(one.client_id, one.machine) for one in fleet.devices] == [(0, "left"), (1, "left")]
    (run,) = expand(Sweep(repetitions=1), [fleet])
    assert run.name == expand(Sweep(clients=(2,), slo_ms=(100,), fps=(15,), repetitions=1))[0].name


def test_the_template_of_the_clone_is_read(root: Path, hosts: Hosts) -> None:
    machines, (fleet,) = read_configurations([root / "src" / "experiment_manager" / "clients_cfg"], hosts)
    assert machines.clients == hosts.clients
    assert fleet.setting == "var_var"
    assert [(one.slo_ms, one.fps) for one in fleet.devices] == [(75, 15), (100, 25), (150, 15), (100, 15)]


def test_lines_name_several_machines(tmp_path: Path, hosts: Hosts) -> None:
    path = tmp_path / "client_cfg_template_2_var_var.txt"
    path.write_text("host_0 10.0.0.2 22 eth1 me /x 75 15\nhost_1 10.0.0.9 2222 wlan0 you /y 150 25\n")
    machines, (fleet,) = read_configurations([path], hosts)
    assert fleet.setting == "var_var"
    assert [device.machine for device in fleet.devices] == ["left", "10.0.0.9-2222"]
    added = machines.clients[1]
    assert (added.port, added.interface, added.user, str(added.root_dir)) == (2222, "wlan0", "you", "/y")


def test_a_missing_configuration_is_named(tmp_path: Path, hosts: Hosts) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt cannot be read"):
        read_configurations([tmp_path / "gone.txt"], hosts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no client configuration in"):
        read_configurations([tmp_path / "empty"], hosts)
