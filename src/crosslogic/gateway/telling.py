"""What the caller is shown at the end: the answer's last bytes, or why there is none."""

from crosslogic.gateway import errors
from crosslogic.gateway.attempts import end_of
from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.visit import Attempt, Visit


def show_end(visit: Visit, attempt: Attempt) -> None:
    """The end of an attempt whose record is durable, to a caller that is still there."""
    exchange = visit.exchange
    relay = attempt.relay
    if attempt.refusal is not None or relay is None:
        tell(visit, attempt.refusal or errors.UPSTREAM_ERROR)
    elif relay.streaming and relay.reader is not None:
        end = end_of(attempt)
        if exchange.started:
            exchange.end(end)
        else:
            exchange.respond(200, visit.headers + STREAM_HEADERS, end)
    elif exchange.started:
        # Only comments about the queue have gone out: what the engine says instead of a stream follows as an event.
        exchange.write(b"data: %b\n\n" % b" ".join(relay.body.splitlines()))
        exchange.abort()
    else:
        content_type = relay.content_type or b"application/json"
        exchange.respond(relay.status, visit.headers + b"content-type: %b\r\n" % content_type, relay.body)


def tell(visit: Visit, refusal: Refusal) -> None:
    """Say no: as an answer, or as an event where a stream has begun."""
    exchange = visit.exchange
    if not exchange.started:
        exchange.respond(refusal.status, visit.headers + refusal.header_lines(), refusal.body())
        return
    # The stream has begun: an error event, and then no proper end, so that nobody takes it for a success.
    exchange.write(refusal.chat_event() if visit.endpoint.dialect is Dialect.OPENAI else refusal.event())
    exchange.abort()
