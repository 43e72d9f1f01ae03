"""Hold, commit, meter, keep-alive, limits, end: the answer's life by playbooks, without a socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, FaultKind, Operation, Outcome
from pool_server.gateway import answer as answers
from pool_server.gateway import transports
from pool_server.gateway.answer import End, Ending, UnusableAnswerError, Write
from pool_server.gateway.transports import WaitTimers
from tests.gateway.playbook import MASK, SECRET, Playbook, body, delta, event, frame, frames, stream, undecided

ROLE = event({"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]})
DONE = event(b"[DONE]")
ERROR = event({"error": {"message": f"overloaded {SECRET}", "code": 503}})
REFUSED = event({"error": {"message": f"your prompt {SECRET}", "code": 400}})
CREATED = frame("response.created", response={"id": "resp_1"})
WORD = frame("response.output_text.delta", delta="a")
COMPLETED = frame("response.completed", response={"id": "resp_1", "status": "completed"})
LIMITS = frame("codex.rate_limits", rate_limits={"primary": {"used_percent": 77}})
MINE = '{"type":"codex.rate_limits","mine":true}'


def failed(code: str) -> str:
    return frame(
        "response.failed", response={"id": "r", "status": "failed", "error": {"code": code, "message": SECRET}}
    )


def test_a_stream_is_held_until_it_shows_something_and_ends_behind_its_record() -> None:
    play = stream()
    play.feed(ROLE).nothing()
    assert play.answer.clean and not play.answer.committed
    play.feed(delta("a")).writes(ROLE, delta("a"))
    play.offer(delta("b")).writes(delta("b"))
    play.feed(DONE).ends(Outcome.OK, DONE)
    play.feed(b": bye\n\n").writes(b": bye\n\n")
    play.finish().nothing()
    assert (play.answer.ending, play.answer.done) == (Ending.COMPLETE, True)


def test_what_ends_at_once_is_released_whole() -> None:
    stream().feed(ROLE + delta("a") + DONE).ends(Outcome.OK, ROLE + delta("a") + DONE)
    play = stream()
    play.feed(ROLE).nothing()
    play.feed(DONE).ends(Outcome.OK, ROLE, DONE)


@pytest.mark.parametrize("before", [[], [ROLE], [ROLE, b": comment\n\n"]])
def test_a_fault_before_anything_was_shown_is_another_accounts_chance(before: list[bytes]) -> None:
    for end in ("error", "broken", "finish"):
        play = stream()
        for piece in before:
            play.feed(piece).nothing()
        if end == "error":
            play.feed(ERROR).fails(FaultKind.OVERLOAD)
        else:
            getattr(play, end)().fails(FaultKind.NETWORK)


def test_the_requests_own_fault_is_told_in_the_providers_words_without_the_secret() -> None:
    play = stream()
    play.feed(ROLE).nothing()
    play.feed(REFUSED).ends(Outcome.REQUEST_FAULT, ROLE, REFUSED.replace(SECRET.encode(), MASK.encode()), status=400)
    play.finish().nothing()
    assert play.answer.ending is Ending.ERROR


def test_a_fault_after_the_commit_point_is_a_cut() -> None:
    play = stream()
    play.feed(delta("a")).writes(delta("a"))
    play.feed(ERROR).ends(Outcome.CUT, ERROR.replace(SECRET.encode(), MASK.encode()), status=503)
    assert play.answer.ending is Ending.ERROR


@pytest.mark.parametrize("rest", [b"", delta("half")[:30], delta("half")[:-1]])
def test_a_broken_stream_leaves_no_half_event(rest: bytes) -> None:
    play = stream()
    play.feed(delta("a")).writes(delta("a"))
    if rest:
        play.feed(rest).nothing()
    play.broken().ends(Outcome.CUT)
    assert (play.answer.ending, play.answer.done, play.answer.mid_event) == (Ending.BROKEN, True, False)


def test_an_event_too_large_to_hold_is_passed_in_pieces_and_closed_when_it_breaks() -> None:
    play = stream()
    play.feed(delta("a")).writes(delta("a"))
    head = b'data: {"choices":[{"delta":{"content":"' + b"x" * answers.HOLD_BYTES
    play.feed(head).writes(head)
    assert play.answer.mid_event and not play.answer.clean and not play.answer.flows
    play.broken().ends(Outcome.CUT, b"\n\n")


def test_the_latest_event_that_was_released_is_known_for_who_goes_on_counting() -> None:
    words = [b"event: response.output_text.delta\n" + event({**json.loads(WORD), "sequence_number": n}) for n in (3, 4)]
    play = stream(Dialect.RESPONSES)
    for word in words:
        play.offer(word).writes(word)
        assert play.answer.latest == word
    play.feed(words[0][:30]).nothing()
    assert play.answer.latest == words[1]


def test_what_breaks_after_its_end_is_whole() -> None:
    play = stream()
    play.feed(delta("a") + DONE).ends(Outcome.OK, delta("a") + DONE)
    play.broken().nothing()
    assert play.answer.ending is Ending.COMPLETE


def test_too_much_or_too_long_is_not_held() -> None:
    play = stream()
    for _ in range(answers.HOLD_EVENTS - 1):
        play.feed(ROLE).nothing()
    play.feed(ROLE).writes(*[ROLE] * answers.HOLD_EVENTS)
    play = stream()
    play.tick(answers.HOLD_S * 2).nothing()  # nothing is here to show
    play.feed(ROLE).nothing()
    play.tick(answers.HOLD_S * 2).writes(ROLE)
    assert play.answer.committed


class Shout:
    """Makes one event of each piece it is given, and one more at the end."""

    reads_all = True
    failed = ""

    def request(self, sent: bytes) -> bytes:
        return sent.upper()

    def feed(self, piece: bytes) -> bytes:
        return event(b"X") if piece.endswith((b"\n\n", b"}")) else b""

    def finish(self) -> bytes:
        return event(b"END")


class Drop(Shout):
    """Keeps what tells the usage."""

    reads_all = False

    def feed(self, piece: bytes) -> bytes:
        return piece.replace(USAGE, b"")

    def finish(self) -> bytes:
        return b""


USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


def test_a_transformer_takes_the_pieces_place_and_the_meter_reads_the_upstreams() -> None:
    play = stream(transformer=Shout())
    play.feed(delta("a")).writes(event(b"X"))
    assert not play.answer.flows
    play.feed(delta("b")[:20]).nothing()
    play.feed(delta("b")[20:]).writes(event(b"X"))
    play.feed(DONE).ends(Outcome.OK, event(b"X"))
    play.finish().writes(event(b"END"))
    whole = json.dumps({"choices": [{"message": {"content": "x"}}]}).encode()
    body(transformer=Shout()).feed(whole).nothing().finish().ends(Outcome.OK, event(b"X"), event(b"END"))


def test_ordinary_events_pass_by_a_transformer_that_need_not_see_them() -> None:
    play = stream(transformer=Drop())
    play.feed(delta("a")).writes(delta("a"))
    assert play.answer.flows
    play.offer(delta("b")).writes(delta("b"))
    for cut in range(1, len(USAGE)):
        play.offer(USAGE[:cut]).nothing()
        play.offer(USAGE[cut:]).nothing()
    play.offer(USAGE).nothing()
    play.offer(DONE).ends(Outcome.OK, DONE)


EVENTS = [ROLE, delta("a"), delta("Grüße\n\n"), b": comment\n\n", event({"unknown": True}), delta("x" * 300)]


@given(
    st.lists(st.sampled_from(EVENTS), max_size=12),
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.sampled_from(["finish", "break"]),
)
def test_however_a_stream_is_cut_the_same_bytes_pass_and_never_half_an_event(
    events: list[bytes], sizes: list[int], end: str
) -> None:
    whole = b"".join([*events, delta("last"), *([DONE] if end == "finish" else [delta("half")[:25]])])
    play, rest, out, number = stream(), whole, b"", 0
    ended = False
    while rest:
        size = sizes[number % len(sizes)]
        number += 1
        step = play.offer(rest[:size])._taken()
        rest = rest[size:]
        if isinstance(step, Write | End):
            out += b"".join(step.pieces)  # type: ignore[arg-type]
            ended = ended or isinstance(step, End)
            assert out.endswith(b"\n\n")
    if end == "finish":
        play.finish().nothing()
        assert ended and out == whole
    else:
        play.broken().ends(Outcome.CUT)
        assert out == whole[: whole.rfind(b"\n\n") + 2]


WHOLE = json.dumps({"id": "c", "choices": [{"message": {"content": "x"}}]}).encode()


def test_a_body_is_held_until_it_is_whole_and_judged_then() -> None:
    play = body()
    play.feed(WHOLE[:9]).nothing()
    play.feed(WHOLE[9:21]).nothing()
    play.feed(WHOLE[21:]).nothing()
    play.finish().ends(Outcome.OK, WHOLE[:9], WHOLE[9:21], WHOLE[21:])
    assert not play.answer.clean
    error = json.dumps({"error": {"message": "no", "code": 503}}).encode()
    body().feed(error[:9]).nothing().feed(error[9:]).nothing().finish().fails(FaultKind.OVERLOAD)


def test_too_long_a_body_runs_one_piece_behind() -> None:
    piece = b"{" + b" " * (answers.HOLD_BYTES // 2)
    play = body()
    play.feed(piece).nothing()
    play.feed(piece).nothing()
    play.feed(piece).writes(piece, piece)
    play.feed(WHOLE).writes(piece)
    play = body()
    play.feed(b"{").nothing()
    play.feed(b" ").nothing()
    play.tick(answers.HOLD_S).writes(b"{")
    play.feed(b" ").writes(b" ")


def test_a_body_of_a_stream_is_released_from_its_second_piece_on() -> None:
    """Gemini's array of chunks."""
    play = body(Dialect.GEMINI, eager=True)
    chunk = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    first, second = f"[{json.dumps(chunk)}".encode(), f",{json.dumps(chunk)}]".encode()
    play.feed(first).nothing()
    play.feed(second).writes(first)
    play.finish().ends(Outcome.OK, second)


def test_what_is_no_json_passes_as_it_comes_but_for_its_end() -> None:
    for length, last in ((None, False), (9, True)):
        play = body(operation=Operation.AUDIO, length=length)
        play.feed(b"ID3").writes(b"ID3")
        play.feed(b"abc").writes(b"abc")
        if last:
            play.feed(b"def").nothing()
            play.finish().ends(Outcome.OK, b"def")
        else:
            play.feed(b"def").writes(b"def")
            play.finish().ends(Outcome.OK)
    body(operation=Operation.AUDIO).feed(b' {"text"').nothing()


NO_ANSWERS = [
    (Dialect.CHAT, {"id": None, "object": "chat.completion", "choices": None, "usage": None}),
    (Dialect.CHAT, {"id": "c", "choices": []}),
    (Dialect.CHAT, {}),
    (Dialect.CHAT, {"id": "c", "choices": 5}),
    (Dialect.CHAT, {"id": "c", "choices": ["x"]}),
    (Dialect.MESSAGES, {"type": "message", "content": None}),
    (Dialect.MESSAGES, {"id": "msg_1", "type": "message", "content": 5}),
    (Dialect.MESSAGES, {}),
    (Dialect.GEMINI, {"candidates": None, "usageMetadata": {"promptTokenCount": 3}}),
    (Dialect.GEMINI, [{"candidates": []}]),
    (Dialect.RESPONSES, {"id": None, "output": None}),
]


@pytest.mark.parametrize(("dialect", "said"), NO_ANSWERS)
def test_a_body_that_answers_nothing_is_no_answer(dialect: Dialect, said: object) -> None:
    kind = FaultKind.OVERLOAD if dialect is Dialect.CHAT else FaultKind.NETWORK  # a fault with words of its own
    body(dialect).feed(json.dumps(said).encode()).nothing().finish().fails(kind)


def test_a_stream_that_answers_nothing_is_no_answer() -> None:
    for events in ((DONE,), (event({"choices": None}), DONE), (event({"choices": []}), USAGE, DONE)):
        play = stream()
        for one in events:
            play.feed(one).nothing()
        play.finish().fails(FaultKind.NETWORK)


STREAM = ROLE + delta("a") + DONE


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("before", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n"])
def test_a_stream_is_told_by_its_first_bytes_whatever_its_label(labelled: bool, before: bytes) -> None:
    for size in (1, 3, 1000):
        play, out, said = undecided(labelled=labelled), b"", before + STREAM
        for at in range(0, len(said), size):
            step = play.feed(said[at : at + size])._taken()
            out += b"".join(step.pieces) if isinstance(step, Write | End) else b""  # type: ignore[arg-type]
        assert out == said and isinstance(play.answer, answers.StreamAnswer)
        assert play.finish() and play.answer.ending is Ending.COMPLETE


@pytest.mark.parametrize("labelled", [True, False])
def test_a_body_is_told_by_its_first_bytes_whatever_its_label(labelled: bool) -> None:
    play = undecided(labelled=labelled)
    play.feed(b"\n ").nothing()
    play.feed(WHOLE).nothing()
    play.finish().ends(Outcome.OK, b"\n " + WHOLE)
    error = json.dumps({"error": {"message": "no", "code": 503}}).encode()
    undecided(labelled=labelled).feed(error).nothing().finish().fails(FaultKind.OVERLOAD)


def test_nothing_but_blanks_is_no_answer() -> None:
    for end in ("finish", "broken"):
        play = undecided(labelled=False)
        play.feed(b"\n").nothing()
        assert play.answer.clean
        getattr(play, end)().fails(FaultKind.NETWORK)


@pytest.mark.parametrize("cut", [b"", b"{", b'{"id": "c", "choices": [{'])
def test_half_a_body_is_no_answer(cut: bytes) -> None:
    for end in ("finish", "broken"):
        play = body()
        if cut:
            play.feed(cut).nothing()
        getattr(play, end)().fails(FaultKind.NETWORK)


def test_an_error_for_a_body_is_judged_before_it_is_shown() -> None:
    error = json.dumps({"error": {"message": SECRET, "code": 503}}).encode()
    body().feed(error).nothing().finish().fails(FaultKind.OVERLOAD)
    own = json.dumps({"error": {"message": SECRET, "code": 400}}).encode()
    play = body().feed(own).nothing().finish()
    play.ends(Outcome.REQUEST_FAULT, own.replace(SECRET.encode(), MASK.encode()), status=400)
    assert play.answer.ending is Ending.COMPLETE  # it is a whole body


def test_a_turn_is_held_committed_and_ended_like_a_stream() -> None:
    play = frames()
    play.feed(CREATED).nothing()
    assert not play.answer.flows
    play.offer(WORD).writes(CREATED, WORD)
    play.offer(WORD).writes(WORD)
    play.offer(b"binary").writes(b"binary")
    play.offer(COMPLETED).ends(Outcome.OK, COMPLETED)
    assert (play.answer.ending, play.answer.done) == (Ending.COMPLETE, True)


def test_a_turns_limits_are_learnt_and_the_users_are_shown() -> None:
    play = frames()
    play.feed(CREATED).nothing()
    play.feed(LIMITS).nothing()
    play.feed(WORD).writes(CREATED, MINE, WORD)
    play.offer(LIMITS).writes(MINE)
    assert play.account.learnt == [LIMITS.encode()] * 2


def test_a_streams_limits_are_replaced_however_they_are_cut() -> None:
    limits = b"event: codex.rate_limits\n" + event(LIMITS.encode())
    word = b"event: response.output_text.delta\n" + event(WORD.encode())
    for cut in range(1, len(limits)):
        play = stream(Dialect.RESPONSES)
        play.feed(word).writes(word)
        play.offer(limits[:cut]).nothing()
        play.offer(limits[cut:]).writes(limits.replace(LIMITS.encode(), MINE.encode()))
        assert play.account.learnt == [LIMITS.encode()]


def test_a_turn_that_fails_moves_on_is_told_or_is_asked_for_again() -> None:
    frames().feed(CREATED).nothing().feed(failed("server_is_overloaded")).fails(FaultKind.OVERLOAD)
    told = failed("invalid_prompt")
    play = frames().feed(CREATED).nothing().feed(told)
    play.ends(Outcome.REQUEST_FAULT, CREATED, told.replace(SECRET, MASK), status=400)
    assert play.answer.ending is Ending.ERROR
    play = frames().feed(WORD).writes(WORD).feed(failed("server_is_overloaded")).ends(Outcome.CUT, status=503)
    assert play.answer.ending is Ending.BROKEN


@pytest.mark.parametrize("shown", [False, True])
def test_a_refusal_by_close_code_is_the_requests_fault_whenever_it_comes(shown: bool) -> None:
    play = frames()
    if shown:
        play.feed(WORD).writes(WORD)
    play.broken(FaultKind.REQUEST).ends(Outcome.REQUEST_FAULT)
    assert play.answer.ending is Ending.BROKEN


def test_the_clock_knows_who_is_waited_for() -> None:
    timers = WaitTimers(100.0)
    assert not timers.silent(10_000.0, 5.0)  # nobody waits for the upstream
    timers.waiting_since = 200.0
    assert [timers.silent(now, 5.0) for now in (204.9, 205.0)] == [False, True]
    early, alive = transports.EARLY_HEADERS_S, transports.KEEPALIVE_S
    assert [timers.headers_due(100.0 + s) for s in (early - 0.1, early)] == [False, True]
    timers.wrote_at = 300.0
    assert [timers.keep_alive_due(300.0 + s) for s in (alive - 0.1, alive)] == [False, True]


def test_a_playbook_notices_what_was_not_expected() -> None:
    play: Playbook = stream()
    with pytest.raises(AssertionError):
        play.feed(delta("a")).nothing()
    with pytest.raises(AssertionError, match="nothing was expected"):
        stream().feed(delta("a")).feed(delta("b"))


class Silent(Shout):
    """Has told nothing by its end, and then `last`; it is no answer where that is empty."""

    def __init__(self, last: bytes = b"") -> None:
        self._last = last

    def feed(self, piece: bytes) -> bytes:
        return b""

    def finish(self) -> bytes:
        if not self._last:
            raise UnusableAnswerError("there is nothing in it")
        return self._last


def test_a_translated_stream_that_begins_with_the_requests_fault_is_refused_with_its_status() -> None:
    play = stream(transformer=Silent(), translated=True)
    play.feed(REFUSED).fails(FaultKind.REQUEST)
    assert play.answer.refusal is not None and play.answer.refusal[0] == 400
    assert not play.answer.over, "the refusal is told as an answer of its own"
    for told in (stream(transformer=Shout(), translated=True), stream(transformer=Silent())):
        told.feed(delta("a"))._taken()
        told.feed(REFUSED)._taken()
        assert told.answer.refusal is None, "its beginning went out, or it is nobody's translation"


def test_a_translated_stream_that_tells_all_at_its_end_is_whole_and_one_that_tells_nothing_is_none() -> None:
    play = stream(transformer=Silent(event(b"ALL")), translated=True)
    play.feed(delta("a")).nothing().feed(DONE).ends(Outcome.OK, event(b"ALL"))
    assert play.answer.done
    play = stream(transformer=Silent(), translated=True)
    play.feed(delta("a")).nothing().feed(DONE).fails(FaultKind.NETWORK)
    play = stream(Dialect.GEMINI, transformer=Silent())
    play.feed(event({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}))._taken()
    play.finish()
    assert not isinstance(play._taken(), Write), "what cannot be told is no success"


def test_a_stream_s_last_event_needs_no_blank_line() -> None:
    for last, outcome in ((DONE, Outcome.OK), (REFUSED, Outcome.REQUEST_FAULT)):
        play = stream()
        play.feed(delta("a")).writes(delta("a"))
        play.feed(last.rstrip()).nothing()
        assert play.answer.withheld == len(last.rstrip()) and not play.answer.flows
        shown = last.rstrip().replace(SECRET.encode(), MASK.encode())
        play.finish().ends(outcome, shown, status=200 if outcome is Outcome.OK else 400)
    play = stream()
    play.feed(delta("a")).writes(delta("a"))
    play.feed(b'data: {"cho').nothing().finish().ends(Outcome.CUT)
    play = stream()
    play.feed(ERROR.rstrip()).nothing().finish().fails(FaultKind.OVERLOAD)


def test_a_secret_in_an_ordinary_event_is_no_ordinary_one() -> None:
    play = stream()
    play.feed(delta("a")).writes(delta("a"))
    told = delta(f"my key {SECRET}")
    assert not play.answer.ordinary(told)
    play.feed(told).writes(told.replace(SECRET.encode(), MASK.encode()))
    turn = frames()
    turn.feed(WORD).writes(WORD)
    spoken = frame("response.output_text.delta", delta=SECRET)
    assert not turn.answer.ordinary(spoken)
    turn.feed(spoken).writes(spoken.replace(SECRET, MASK))


def test_a_body_and_a_turn_are_offered_nothing_before_they_show_something() -> None:
    for play in (body(), frames(), stream()):
        assert not play.answer.flows and play.answer.withheld == 0
    assert not body().answer.ordinary(b"{}")
    turn = frames()
    turn.feed(CREATED).nothing()
    assert turn.answer.withheld == len(CREATED)
    turn.finish().fails(FaultKind.NETWORK)


def test_a_whole_answer_that_was_told_as_an_error_is_recorded_as_one_and_blames_nobody() -> None:
    for done in (True, False):  # or the stream just ends
        play = stream(transformer=(shout := Shout()), translated=True)
        play.feed(event({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}))._taken()
        shout.failed = "The arguments are no JSON."
        end = (play.feed(DONE) if done else play.finish())._taken()
        assert isinstance(end, answers.End) and play.answer.ending is answers.Ending.ERROR
        assert (end.outcome, end.fault, end.message) == (Outcome.CUT, None, shout.failed)
