"""The client that other programs embed: ``AsyncClient`` on an event loop, ``Client`` without one (``docs/sdk.md``).

Needs the extra ``client`` and no torch.
"""

from moonjelly.adaptation import Send
from moonjelly.rpc.messages import PlanUpdate, StageTimes, ZooInfo, ZooVariant
from moonjelly.sdk.client import AsyncClient
from moonjelly.sdk.connection import ConnectionState
from moonjelly.sdk.encoding import encode
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.statistics import Statistics
from moonjelly.sdk.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "ConnectionState",
    "EncodedFrame",
    "FrameResult",
    "PlanUpdate",
    "Send",
    "StageTimes",
    "Statistics",
    "Withheld",
    "ZooInfo",
    "ZooVariant",
    "encode",
]
