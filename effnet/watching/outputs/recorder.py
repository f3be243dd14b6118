"""What a watch tells of itself, for metrics; nothing is kept without a server."""


class Recorder:
    """What the watch tells of itself; this one keeps nothing."""

    def frame(self, source: str, outcome: str) -> None:
        """Count a frame: "answered", "replaced" by a newer one, "skipped" by the frame budget, or "unreadable"."""

    def ran(self, source: str, *, seconds: float, age: float) -> None:
        """Record the time of the model for a frame, and the age of the frame at its answer."""

    def up(self, source: str, is_up: bool) -> None:
        """Record that a source sends frames, or no more."""

    def event(self, source: str, kind: str) -> None:
        """Count an event."""

    def webhook(self, outcome: str) -> None:
        """Count an event for the webhook: "sent", "failed" or "dropped"."""
