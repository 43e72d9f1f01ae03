"""What a transcript costs the event loop: `python -m benchmarks.transcripts`.

Processor time of the loop's thread for one exchange of 200 events: the capture, its events and its end, with the
recorder writing to a real folder in its own thread. The goal is 30 microseconds an exchange beside what an event costs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from pool_server.core.models import UsageRecord
from pool_server.core.settings import Settings, TranscriptSettings
from pool_server.transcripts import CaptureHead, Transcripts

EXCHANGES = 2000
EVENT = b'data: {"type":"response.output_text.delta","delta":"' + b"x" * 120 + b'"}\n\n'
HEADERS = [(f"X-Header-{number}", "value of a usual length") for number in range(14)]


class Everybody:
    """Consent of all people."""

    def __init__(self) -> None:
        self.on_change: list[object] = []

    def allows(self, user: str) -> bool:
        return True

    stands = allows

    def left(self, user: str) -> bool:
        return False


def exchange(transcripts: Transcripts, number: int, events: int) -> None:
    head = CaptureHead(
        f"{number:024x}", 0.0, "u_1", "k_1", "responses", "responses", "POST", "/v1/responses", "", HEADERS
    )
    capture = transcripts.begin(head, lambda: b"x" * 20_000)
    assert capture is not None
    capture.named("Codex 1.0", "a-session", "0123456789ab")
    capture.answer(200, HEADERS)
    for _ in range(events):
        capture.down(EVENT)
    transcripts.finish(capture, UsageRecord(id=head.id, at=0.0, user="u_1"))


def measured(events: int) -> float:
    """Microseconds of the loop's thread for an exchange of so many events, the median."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=folder, transcripts=TranscriptSettings(enabled=True))
        transcripts = Transcripts(settings, Everybody(), leader=False)  # type: ignore[arg-type]
        taken = []
        for number in range(EXCHANGES):
            before = time.thread_time_ns()
            exchange(transcripts, number, events)
            taken.append((time.thread_time_ns() - before) / 1000)
            if number % 100 == 99:
                transcripts.flush()
        transcripts.flush()
        written = len(list(Path(folder).rglob("*.zst")))
        assert written == EXCHANGES, written
        return statistics.median(taken)


def main() -> None:
    """Prints the cost of an exchange and of each event."""
    whole, bare = measured(200), measured(0)
    print(f"an exchange: {bare:.1f} µs; each event beside it: {(whole - bare) / 200:.2f} µs; of 200: {whole:.1f} µs")


if __name__ == "__main__":
    main()
