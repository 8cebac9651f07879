"""The queueing disciplines of a shaped interface, over netlink.

Below a root HTB there is one class per link that never limits, with a tbf as its leaf; HTB stands where Jellyfish used
prio, which some kernels lack and which ends at 16 bands. An outage replaces the leaf by ``blackhole``: every packet is
dropped unseen by TCP, as on a dead radio link.

Changes are compiled ahead of their instant and sent as one batch. Bursts stay constant and packets unsegmented
(``gso_max_segs`` 1): shrinking the bucket below a queued GSO packet would stall the link for good.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPBatch, IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWQDISC
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from moonjelly.errors import ShapingError
from network_shaping.bucket import DEFAULT, Bucket

ROOT = 0x4D4A_0000
"""Handle of our root qdisc ("MJ"): what tells it from anybody else's."""
_EVERYTHING_ELSE = ROOT | 1
_FIRST_LINK = 0x10
_NO_LIMIT = {"rate": "10gbit", "burst": 1 << 20, "quantum": 60_000}
_ETHERTYPE_IPV4, _ETHERTYPE_IPV6 = 0x0800, 0x86DD
_OFFSETS = {"sport": 20, "dport": 22, "src": 12, "dst": 16}
_OFFSETS_IPV6 = {"src": 8, "dst": 24}
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_REPLY_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Match:
    """Packets of a link, told by one header field: of IPv4 without IP options, or an address of IPv6.

    Attributes:
        field: ``sport``, ``dport``, ``src`` or ``dst``.
        value: port number, or address as a number.
        ethertype: of the packets.
    """

    field: str
    value: int
    ethertype: int = _ETHERTYPE_IPV4

    @staticmethod
    def parse(text: str) -> Match:
        """``sport:40001``, ``dst:10.0.0.7``, ``dst:2001:db8::7``.

        Raises:
            ShapingError: neither.
        """
        field, _, value = text.partition(":")
        try:
            if field in ("sport", "dport") and 0 < int(value) < 65_536:
                return Match(field, int(value))
            if field in ("src", "dst") and ":" in value:
                address = socket.inet_pton(socket.AF_INET6, value)
                return Match(field, int.from_bytes(address, "big"), _ETHERTYPE_IPV6)
            if field in ("src", "dst"):
                return Match(field, int.from_bytes(socket.inet_aton(value), "big"))
        except (ValueError, OSError):
            pass
        raise ShapingError(f"'{text}' is not a match; write sport:PORT, dport:PORT, src:ADDRESS or dst:ADDRESS")

    @property
    def keys(self) -> list[str]:
        """In u32's notation; it compares 32 bits at a time."""
        if self.ethertype == _ETHERTYPE_IPV6:
            words = [(self.value >> shift) & 0xFFFFFFFF for shift in (96, 64, 32, 0)]
            return [f"{word:#x}/0xffffffff+{_OFFSETS_IPV6[self.field] + 4 * n}" for n, word in enumerate(words)]
        ports = self.field in ("sport", "dport")
        return [f"{self.value:#x}/{0xFFFF if ports else 0xFFFFFFFF:#x}+{_OFFSETS[self.field]}"]


def class_of(link: int) -> int:
    """Class id of a link by its index; a socket whose ``SO_PRIORITY`` is this belongs to the link."""
    return ROOT | (_FIRST_LINK + link)


class ShapedInterface:
    """Our queueing disciplines on one interface of the present network namespace. Not for use in an event loop.

    Args:
        name: of the interface.
        bucket: of every link.

    Raises:
        ShapingError: no such interface, or not allowed to shape.
    """

    def __init__(self, name: str, bucket: Bucket = DEFAULT) -> None:
        self.name = name
        self._bucket = bucket
        self._route = IPRoute()
        self._compiler = IPBatch()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        found = self._route.link_lookup(ifname=name)
        if not found:
            known = sorted(str(link.get_attr("IFLA_IFNAME")) for link in self._route.get_links())
            self.close()
            raise ShapingError(f"there is no interface '{name}'; there are {', '.join(known)}")
        self._index = found[0]

    def close(self) -> None:
        """Close the sockets; what is on the interface stays."""
        self._route.close()
        self._compiler.close()
        self._socket.close()

    @property
    def gso_max_segs(self) -> int:
        """How many segments the stack may pass down as one packet."""
        return int(self._route.get_links(self._index)[0].get_attr("IFLA_GSO_MAX_SEGS"))

    def set_gso_max_segs(self, segments: int) -> None:
        """See :attr:`gso_max_segs`."""
        self._do(self._route.link, "set", index=self._index, gso_max_segs=segments)

    def root(self) -> tuple[str, int]:
        """Kind and handle of the interface's root qdisc; handle 0 is the kernel's own default."""
        for qdisc in self._route.get_qdiscs(self._index):
            if qdisc["parent"] == 0xFFFF_FFFF:
                return str(qdisc.get_attr("TCA_KIND")), int(qdisc["handle"])
        return "noqueue", 0

    def build(self, rates_bps: Sequence[float], matches: Sequence[Sequence[Match]]) -> None:
        """Root, a class and a leaf per link, and the filters, in one batch.

        Raises:
            ShapingError: refused by the kernel; what was built is removed.
        """
        kind, handle = self.root()
        if handle not in (0, ROOT):
            raise ShapingError(
                f"interface '{self.name}' has a queueing discipline of its own ({kind} {handle >> 16:x}:); "
                f"remove it first: tc qdisc del dev {self.name} root"
            )
        self.remove()
        batch = self._compiler
        batch.reset()
        batch.tc("add", "htb", self._index, ROOT, default=_EVERYTHING_ELSE & 0xFFFF)
        batch.tc("add-class", "htb", self._index, _EVERYTHING_ELSE, parent=ROOT, **_NO_LIMIT)
        for link in range(len(rates_bps)):
            batch.tc("add-class", "htb", self._index, class_of(link), parent=ROOT, **_NO_LIMIT)
            for match in matches[link]:
                prio = 1 if match.ethertype == _ETHERTYPE_IPV4 else 2  # filters of one priority share a protocol
                keys = {"protocol": match.ethertype, "prio": prio, "target": class_of(link), "keys": match.keys}
                batch.tc("add-filter", "u32", self._index, 0, parent=ROOT, **keys)
        messages = bytes(batch.batch)
        try:
            self.send(messages + self.compile(dict(enumerate(rates_bps)), {}))
        except ShapingError:
            self.remove()
            raise

    def compile(self, rates_bps: Mapping[int, float], before_bps: Mapping[int, float]) -> bytes:
        """The batch that gives links new rates.

        Args:
            rates_bps: link to new rate; 0 is an outage.
            before_bps: link to the rate in force; a link without one has no leaf yet.
        """
        batch = self._compiler
        batch.reset()
        for link, rate_bps in rates_bps.items():
            if rate_bps <= 0.0:
                batch.asyncore.batch += self._blackhole(link)
                continue
            command = "change" if before_bps.get(link, 0.0) > 0.0 else "replace"
            batch.tc(
                command,
                "tbf",
                self._index,
                (_FIRST_LINK + link) << 16,
                parent=class_of(link),
                rate=f"{max(8, round(rate_bps))}bit",
                burst=self._bucket.burst_bytes,
                limit=self._bucket.limit_bytes(rate_bps),
            )
        return bytes(batch.batch)

    def send(self, batch: bytes) -> None:
        """Send a batch and check every answer.

        Raises:
            ShapingError: the kernel refused one of its messages.
        """
        count, at = 0, 0
        while at < len(batch):
            at += int.from_bytes(batch[at : at + 4], "little" if _HEADER.pack(1, 0, 0, 0, 0)[0] else "big")
            count += 1
        self._socket.sendto(batch, (0, 0))
        refused = 0
        while count:
            reply = memoryview(self._socket.recv(_REPLY_BYTES))
            while reply:
                length, kind, *_ = _HEADER.unpack_from(reply)
                if kind == _NLMSG_ERROR:
                    count -= 1
                    refused = refused or -_ERROR.unpack_from(reply, _HEADER.size)[0]
                reply = reply[(length + 3) & ~3 :]
        if refused:
            raise ShapingError(self._explained(refused))

    def rates_bps(self) -> dict[int, float]:
        """What the kernel says of each link: its leaf's rate, 0 for an outage."""
        rates = {}
        for qdisc in self._route.get_qdiscs(self._index):
            link = qdisc["parent"] - ROOT - _FIRST_LINK
            if link < 0 or qdisc["parent"] == 0xFFFF_FFFF:
                continue
            kind = qdisc.get_attr("TCA_KIND")
            if kind == "tbf":
                rates[link] = qdisc.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"] * 8.0
            elif kind == "blackhole":
                rates[link] = 0.0
        return rates

    def remove(self) -> bool:
        """Remove our queueing disciplines, whoever made them; false when there are none."""
        kind, handle = self.root()
        if handle != ROOT:
            return False
        self._do(self._route.tc, "del", kind, self._index, ROOT)
        return True

    def _blackhole(self, link: int) -> bytes:
        """pyroute2 puts kinds that it does not know at the root; this one belongs below the link's class."""
        message = tcmsg()
        message["index"] = self._index
        message["handle"] = 0
        message["parent"] = class_of(link)
        message["attrs"] = [("TCA_KIND", "blackhole")]
        message["header"]["type"] = RTM_NEWQDISC
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        message.encode()
        return bytes(message.data)

    def _do(self, call: Any, *arguments: Any, **options: Any) -> None:
        try:
            call(*arguments, **options)
        except NetlinkError as fault:
            raise ShapingError(self._explained(fault.code)) from fault

    def _explained(self, code: int) -> str:
        reason = os.strerror(code)
        if code == errno.EPERM:
            reason = "not permitted; shaping needs root or CAP_NET_ADMIN (or use the relay, which needs neither)"
        elif code == errno.ENOENT:
            reason = "this kernel lacks a part of it (htb, tbf, cls_u32 or blackhole); use the relay instead"
        return f"interface '{self.name}' cannot be shaped: {reason}"
