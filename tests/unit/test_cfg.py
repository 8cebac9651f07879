"""The reader of network definitions: what it understands, and what it says about what it does not."""

from __future__ import annotations

import pytest

from moonjelly.errors import ModelError
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.definition import Convolutional, MaxPool, Route, Shape, Shortcut, Yolo
from moonjelly.models.weights import expected_floats

SMALL = """
[net]
# a comment
width = 64
height=64   ; another
channels=3
learning_rate=0.1
policy=steps

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish

[convolutional]
filters=8
size=3
groups=4
pad=1
activation=leaky

[shortcut]
from=-2
activation=linear

[route]
layers=-1
groups=2
group_id=1

[maxpool]
size=2
stride=2

[dropout]
probability=.25

[upsample]
stride=2

[route]
layers=-1,0

[convolutional]
size=1
filters=14
activation=linear

[yolo]
mask=1,2
anchors=1,2, 3,4, 5.5,6
classes=2
num=3
jitter=.3
scale_x_y=1.05
nms_kind=greedynms
"""


def test_sections_get_their_values_and_shapes() -> None:
    config = parse_cfg(SMALL)
    assert (config.width, config.height, config.channels) == (64, 64, 3)
    assert config.sections[0] == Convolutional(0, 3, 8, 3, 2, 1, 1, True, "mish")
    assert config.sections[1] == Convolutional(1, 8, 8, 3, 1, 1, 4, False, "leaky")
    assert config.sections[2] == Shortcut(2, (0,), "linear")
    assert config.sections[3] == Route(3, (2,), 2, 1)
    assert config.sections[4] == MaxPool(4, 2, 2, 1)
    assert config.sections[7] == Route(7, (6, 0), 1, 0)
    assert config.sections[9] == Yolo(9, ((3.0, 4.0), (5.5, 6.0)), 2, 1.05, False, 2)
    assert [(shape.channels, shape.stride) for shape in config.shapes] == [
        (8, 2), (8, 2), (8, 2), (4, 2), (4, 4), (4, 4), (4, 2), (12, 2), (14, 2), (14, 2)
    ]  # fmt: skip
    assert config.shapes[0] == Shape(8, 2)


def test_the_stride_is_that_of_the_deepest_section_and_heads_count_their_cells() -> None:
    config = parse_cfg(SMALL)
    assert config.stride == 4
    assert config.class_count == 2
    assert config.candidates(64, 32) == 2 * 32 * 16


def test_floats_are_counted_per_convolution() -> None:
    batch_normalized = 4 * 8 + 8 * 3 * 9
    grouped = 8 + 8 * 2 * 9
    head = 14 + 14 * 12
    assert expected_floats(parse_cfg(SMALL)) == batch_normalized + grouped + head


def test_windows_line_ends_and_spaces_change_nothing() -> None:
    assert parse_cfg(SMALL.replace("\n", "\r\n").replace("=", " = ")) == parse_cfg(SMALL)


def test_negative_and_absolute_routes_name_the_same_section() -> None:
    assert parse_cfg(SMALL.replace("layers=-1,0", "layers=6,-7")) == parse_cfg(SMALL)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("activation=mish", "activation=gelu", r"section 0 \[conv.*'activation' = 'gelu'.*use one of linear"),
        ("[dropout]", "[crnn]", r"section 5 \[crnn\].*unknown section; supported are .*convolutional"),
        ("filters=14", "filters=15", r"section 9 \[yolo\].*'classes' = '2'.*need 14 channels.*gives 15.*filters=14"),
        ("filters=14", "filter=14", r"section 8 \[convolutional\].*'filters' is missing"),
        ("filters=14", "filters=14\nfoo=1", r"section 8 .*'foo' = '1'.*unknown here; .* reads .*filters"),
        ("groups=4", "groups=3", r"section 1 .*'groups' = '3'.*must divide its 8 input channels and its 8 filters"),
        ("groups=4", "groups=4\ndilation=2", r"section 1 .*'dilation' = '2'.*only 1 is"),
        ("groups=4", "groups=4\ngroups=4", r"section 1 .*'groups' = '4' in line \d+ is given twice; keep one"),
        ("from=-2", "from=-9", r"section 2 \[shortcut\].*'from' = '-9'.*whole numbers from -2 to 1"),
        ("from=-2\n", "", r"section 2 \[shortcut\].*'from' is missing"),
        ("layers=-1,0", "layers=-1,4", r"section 7 \[route\].*'layers' = '-1,4'.*differ in stride: .* 2.* 4"),
        ("group_id=1", "group_id=2", r"section 3 \[route\].*'group_id' = '2'.*from 0 to 1"),
        ("size=3\ngroups=4\npad=1", "size=3\ngroups=4", r"section 1 .*'size' = '3'.*set pad=1"),
        ("[upsample]\nstride=2", "[upsample]\nstride=8", r"section 6 .*'stride' = '8'.*divide the stride 4"),
        ("anchors=1,2, 3,4, 5.5,6", "anchors=1,2,3", r"section 9 \[yolo\].*'anchors' = '1,2,3'.*pairs of positive"),
        ("anchors=1,2, 3,4, 5.5,6", "anchors=1,2,3,x", r"'anchors' = '1,2,3,x'.*numbers separated by commas"),
        ("mask=1,2", "mask=1,3", r"section 9 \[yolo\].*'mask' = '1,3'.*from 0 to 2"),
        ("probability=.25", "probability=2", r"section 5 \[dropout\].*'probability' = '2'.*from 0 to 1"),
        ("filters=8", "filters=1000000000", r"section 0 .*'filters' = '1000000000'.*from 1 to 65536"),
        ("filters=8", "filters=nan", r"section 0 .*'filters' = 'nan'.*number from 1"),
        ("width = 64", "width = 63", r"\[net\].*'width' = '63'.*multiple of the network's stride 4"),
        ("[yolo]", "[yolo", r"line \d+: '\[yolo' is neither"),
        ("policy=steps", "steps", r"line 8: 'steps' is neither '\[section\]' nor 'key = value'"),
        ("[net]", "[convolutional]", r"begins with \[net\], this one with \[convolutional\] in line 2"),
    ],
)  # fmt: skip
def test_a_fault_names_section_key_value_and_remedy(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(ModelError, match=message):
        parse_cfg(SMALL.replace(old, new, 1))


def test_a_shortcut_between_unequal_shapes_is_refused() -> None:
    text = SMALL.replace("filters=8\nsize=3\ngroups=4", "filters=16\nsize=3\ngroups=4")
    with pytest.raises(ModelError, match=r"section 0 gives 8 channels at stride 2, the previous one 16 channels"):
        parse_cfg(text)


def test_a_network_needs_a_head() -> None:
    with pytest.raises(ModelError, match=r"no \[yolo\] section"):
        parse_cfg(SMALL[: SMALL.index("[yolo]")])


def test_nothing_follows_a_head_but_a_route() -> None:
    with pytest.raises(ModelError, match=r"section 10 \[dropout\].*follows a \[yolo\] head.*put a \[route\]"):
        parse_cfg(SMALL + "\n[dropout]\n")
    with pytest.raises(ModelError, match=r"section 10 \[route\].*section 9 is a \[yolo\] head"):
        parse_cfg(SMALL + "\n[route]\nlayers=-1\n")


def test_heads_must_agree_on_their_classes() -> None:
    second = "[route]\nlayers=-2\n[convolutional]\nfilters=16\n[yolo]\nmask=0,1\nanchors=1,2, 3,4\nclasses=3\n"
    with pytest.raises(ModelError, match=r"section 12 \[yolo\]: 'classes' = 3 but section 9 has 2"):
        parse_cfg(SMALL + second)


def test_an_empty_definition_says_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"empty; give the text of a Darknet \.cfg"):
        parse_cfg("# nothing\n")
