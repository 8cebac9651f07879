"""What the server has told a client: its zoo and limits, the plan, that it will stop."""

from __future__ import annotations

from msgspec import structs

from moonjelly.adaptation import LATENCY_FACTOR, PlanView
from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages
from moonjelly.sdk.results import EncodedFrame, Withheld
from moonjelly.types import Outcome

DEFAULT_MAX_OUTSTANDING = 32
"""Jellyfish's cap; a server may ask for less."""


class Terms:
    """The latest welcome and what has changed since.

    Attributes:
        welcome: ``None`` before the first, and when the server no longer knows the session.
        plan: the one in force, ``None`` before the first welcome.
        drain: set once the server has said that it will stop.
    """

    def __init__(self) -> None:
        self.welcome: messages.Welcome | None = None
        self.plan: messages.PlanUpdate | None = None
        self.drain: messages.Drain | None = None

    # -- learning ---------------------------------------------------------------------------------------------------

    def accept(self, welcome: messages.Welcome) -> None:
        """A new stream begins.

        Raises:
            ProtocolError: the server speaks another version of the protocol.
        """
        if welcome.protocol_version != messages.PROTOCOL_VERSION:
            raise ProtocolError(
                f"the server speaks protocol {welcome.protocol_version}, this client {messages.PROTOCOL_VERSION}; "
                "install the same release on both"
            )
        self.welcome, self.plan, self.drain = welcome, welcome.plan, None

    def check(self, message: messages.ServerMessage) -> None:
        """Refuse a message whole, before any part of it has had an effect.

        Raises:
            ProtocolError: it names a variant or a class that the zoo does not have.
        """
        if message.plan is not None:
            self._check_variant(message.plan.variant)
        for result in message.results:
            self._check_variant(result.variant)
            self._check_variant(result.next_variant)
            self._check_classes(result)

    def update(self, message: messages.ServerMessage) -> None:
        """Take in what a message says of plan and drain."""
        if message.plan is not None:
            self.plan = message.plan
        if message.drain is not None:
            self.drain = message.drain

    def follow(self, result: messages.Result) -> None:
        """A result names the variant to size the next frame for; one of an older plan does not count."""
        if self.plan is not None and self.plan.placed and result.plan_version >= self.plan.version:
            self.plan = structs.replace(self.plan, version=result.plan_version, variant=result.next_variant)

    # -- asking -----------------------------------------------------------------------------------------------------

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Side in pixels per variant; empty before the first welcome."""
        return tuple(variant.input_size for variant in self.welcome.zoo.variants) if self.welcome else ()

    @property
    def max_outstanding(self) -> int:
        """Frames that may wait for their result."""
        asked = self.welcome.max_outstanding if self.welcome else 0
        return min(asked, DEFAULT_MAX_OUTSTANDING) if asked else DEFAULT_MAX_OUTSTANDING

    @property
    def next_variant(self) -> str:
        """Name of the variant to size frames for; empty before the first plan."""
        return self.variant_name(self.plan.variant) if self.plan else ""

    def variant_name(self, index: int) -> str:
        """Empty where nothing is known of such a variant."""
        variants = self.welcome.zoo.variants if self.welcome else ()
        return variants[index].name if index < len(variants) else ""

    def accuracy(self, index: int) -> float:
        """Profiled, of a variant that the zoo has; 0 without a zoo."""
        return self.welcome.zoo.variants[index].accuracy if self.welcome else 0.0

    def objection(self, encoded: EncodedFrame) -> Withheld | None:
        """Why the server would refuse such a frame whenever it came."""
        if self.welcome is None:
            return None
        limit, count = self.welcome.max_frame_bytes, len(self.welcome.zoo.variants)
        if limit and len(encoded.data) > limit:
            text = f"{len(encoded.data)} bytes; the server takes at most {limit}: lower the quality or the size"
            return Withheld(Outcome.FAILED, text)
        if encoded.variant >= count:
            return Withheld(Outcome.FAILED, f"sized for variant {encoded.variant}; the zoo has {count}")
        return None

    def _check_variant(self, index: int) -> None:
        count = len(self.welcome.zoo.variants) if self.welcome else 0
        if index >= count:
            raise ProtocolError(f"the server names variant {index}; its zoo has {count}")

    def _check_classes(self, result: messages.Result) -> None:
        known = len(self.welcome.zoo.classes) if self.welcome else 0
        if len(result.detections) and int(result.detections.classes.max()) >= known:
            raise ProtocolError(f"the server found class {result.detections.classes.max()}; its zoo has {known}")


def plan_view(plan: messages.PlanUpdate) -> PlanView:
    """The plan, or for a rejected client that of a probe: a frame of the smallest size."""
    variant, factor = plan.variant if plan.placed else 0, plan.latency_factor or LATENCY_FACTOR
    return PlanView(True, variant, plan.infer_ms, plan.overhead_ms, factor)
