from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from moonjelly.rpc import serving_pb2 as pb
from moonjelly.rpc import varint


@settings(deadline=None)
@given(st.integers(0, 2**35 - 1), st.binary(max_size=3), st.binary(max_size=3))
@example(127, b"", b"\xff")
@example(128, b"\xff", b"")
def test_a_number_is_read_where_it_was_written_and_its_end_is_known(value: int, before: bytes, after: bytes) -> None:
    written = varint.write(value)
    assert varint.read(before + written + after, len(before)) == (value, len(before) + len(written))


@settings(deadline=None)
@given(st.integers(1, 2**64 - 1))
def test_a_number_is_written_as_protobuf_writes_it(value: int) -> None:
    frame_id_tag = bytes([1 << 3])
    assert frame_id_tag + varint.write(value) == pb.Result(frame_id=value).SerializeToString()
