"""`/api/v1/compass`: conversations about what is to be deployed, and the specifications that come of them."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from crosslogic.api.auth import OwnHome, Services
from crosslogic.api.compass_models import MODELS_IN_FORCE, taught
from crosslogic.api.conversation_models import (
    ConversationCreate,
    ConversationDetail,
    ConversationView,
    ExchangeView,
    MessageCreate,
    RecommendedView,
    RevisionView,
    SpecificationChange,
    SpecificationCreate,
    SpecificationView,
    SpecifiedView,
    TurnView,
    UnderstandingView,
)
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.compass.conversation.model import StoredSpecification
from crosslogic.compass.conversation.service import CompassService
from crosslogic.compass.specification.validate import Weight, validate
from crosslogic.kernel.errors import CrossLogicError, InvalidRequest, Unavailable

own_router = APIRouter(prefix="/api/v1/compass", tags=["compass"], dependencies=[MODELS_IN_FORCE])

_EVENTS = "text/event-stream"
_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {_EVENTS: {}}, "description": "JSON, or events"}}
Accept = Annotated[str, Header(description=f"`{_EVENTS}`: the answer in events, as it comes")]


def _as_member(home: OwnHome, services: Services) -> CompassService:
    if services.compass is None:
        raise Unavailable("this process has no planner")
    return services.compass.acting_as(home.tenancy.audit.trail.actor)


OwnCompass = Annotated[CompassService, Depends(_as_member)]
Containing = Annotated[Word | None, Query(description="words of the title or name, in any letter case")]


@own_router.post("/conversations", status_code=201)
async def start_conversation(body: ConversationCreate, home: OwnHome, compass: OwnCompass) -> ConversationDetail:
    """Begin a conversation, with or without a first message."""
    conversation = await compass.start(home.org.id)
    if body.message is not None:
        await compass.say(home.org.id, conversation.id, body.message)
    return await get_conversation(conversation.id, home, compass)


@own_router.get("/conversations")
async def list_conversations(
    home: OwnHome,
    compass: OwnCompass,
    containing: Containing = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[ConversationView]:
    found = await compass.conversations(home.org.id, containing=containing, after=cursor, limit=limit)
    return page_of([ConversationView.of(each) for each in found], [each.id for each in found], limit)


@own_router.get("/conversations/{conversation_id}")
async def get_conversation(conversation_id: Word, home: OwnHome, compass: OwnCompass) -> ConversationDetail:
    conversation, turns = await compass.conversation(home.org.id, conversation_id)
    view = ConversationView.of(conversation)
    return ConversationDetail(**view.model_dump(), messages=[TurnView.of(turn) for turn in turns])


@own_router.delete("/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: Word, home: OwnHome, compass: OwnCompass) -> None:
    """Forget all that was said. The specification stays."""
    await compass.forget(home.org.id, conversation_id)


@own_router.post("/conversations/{conversation_id}/messages", response_model=ExchangeView, responses=_STREAMED)
async def say(
    conversation_id: Word,
    body: MessageCreate,
    home: OwnHome,
    compass: OwnCompass,
    services: Services,
    accept: Accept = "*/*",
) -> Response | ExchangeView:
    """Say something; the answer tells what was understood, the specification, and what to ask next.

    With `recommend`, also what is now recommended, and what changed by that. As events: `understood`,
    `specification`, `reply` line by line, `recommended` where it was asked for, `done`.
    """
    exchange = await compass.say(home.org.id, conversation_id, body.message)
    view = ExchangeView.of(exchange)
    if _EVENTS in accept:
        events = _events(view, body.recommend, exchange.specification, home, compass, services)
        return StreamingResponse(events, media_type=_EVENTS, headers={"cache-control": "no-store"})
    if body.recommend:
        view.recommended = await _recommended(exchange.specification, home, compass, services)
    return view


async def _events(
    view: ExchangeView,
    recommend: bool,
    stored: StoredSpecification,
    home: OwnHome,
    compass: OwnCompass,
    services: Services,
) -> AsyncIterator[bytes]:
    yield _event("understood", view.understanding.model_dump(mode="json"))
    yield _event("specification", view.specification.model_dump(mode="json"))
    for line in view.reply.splitlines():
        yield _event("reply", {"text": line})
    if recommend:  # the reply is read while this is computed
        try:
            found = await _recommended(stored, home, compass, services)
        except CrossLogicError as error:
            yield _event("error", {"message": str(error)})
        else:
            yield _event("recommended", None if found is None else found.model_dump(mode="json"))
    yield _event("done", {"conversation_id": view.conversation.id, "extractor": view.extractor, "note": view.note})


async def _recommended(
    stored: StoredSpecification, home: OwnHome, compass: OwnCompass, services: Services
) -> RecommendedView | None:
    """None where the specification contradicts itself: its findings say how."""
    if any(finding.weight is Weight.ERROR for finding in validate(stored.specification)):
        return None
    found = await services.planning.recommend(stored.specification, await taught(services, home.org.id))
    return RecommendedView.of(*await compass.keep(stored, found))


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


@own_router.post("/specifications", status_code=201)
async def create_specification(body: SpecificationCreate, home: OwnHome, compass: OwnCompass) -> SpecifiedView:
    """A specification from a description, without a conversation."""
    stored, understanding = await compass.specify(home.org.id, body.description, body.changes, body.name or "")
    return SpecifiedView(specification=SpecificationView.of(stored), understanding=UnderstandingView.of(understanding))


@own_router.get("/specifications")
async def list_specifications(
    home: OwnHome,
    compass: OwnCompass,
    containing: Containing = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[SpecificationView]:
    found = await compass.specifications(home.org.id, containing=containing, after=cursor, limit=limit)
    return page_of([SpecificationView.of(each) for each in found], [each.id for each in found], limit)


@own_router.get("/specifications/{specification_id}")
async def get_specification(specification_id: Word, home: OwnHome, compass: OwnCompass) -> SpecificationView:
    return SpecificationView.of(await compass.specification(home.org.id, specification_id))


@own_router.patch("/specifications/{specification_id}")
async def change_specification(
    specification_id: Word, body: SpecificationChange, home: OwnHome, compass: OwnCompass
) -> SpecificationView:
    """Edit fields. 409 when `revision` is not the newest."""
    changed = await compass.edit(home.org.id, specification_id, body.changes, name=body.name, revision=body.revision)
    return SpecificationView.of(changed)


@own_router.delete("/specifications/{specification_id}", status_code=204)
async def delete_specification(specification_id: Word, home: OwnHome, compass: OwnCompass) -> None:
    await compass.discard(home.org.id, specification_id)


@own_router.get("/specifications/{specification_id}/revisions")
async def list_revisions(
    specification_id: Word,
    home: OwnHome,
    compass: OwnCompass,
    reason: Annotated[Word | None, Query(description="created, edited or conversation")] = None,
    cursor: Annotated[int | None, Query(ge=0)] = None,
    limit: Limit = 100,
) -> Page[RevisionView]:
    """Every state that it had, with what was changed, by whom and why."""
    found = await compass.history(home.org.id, specification_id, reason=reason, after=cursor, limit=limit)
    return page_of([RevisionView.of(each) for each in found], [each.revision for each in found], limit)


@own_router.post("/specifications/{specification_id}/recommendations", status_code=201)
async def recommend(specification_id: Word, home: OwnHome, compass: OwnCompass, services: Services) -> RecommendedView:
    """Recommend for the specification as it is now, and keep that beside what was recommended before."""
    stored = await compass.specification(home.org.id, specification_id)
    found = await _recommended(stored, home, compass, services)
    if found is None:
        error = next(each for each in validate(stored.specification) if each.weight is Weight.ERROR)
        raise InvalidRequest(error.sentence, param=error.field)
    return found


@own_router.get("/specifications/{specification_id}/recommendations")
async def list_recommendations(
    specification_id: Word,
    home: OwnHome,
    compass: OwnCompass,
    revision: Annotated[int | None, Query(ge=1)] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[RecommendedView]:
    """What was recommended for it as it went on, the latest first, each beside the one before."""
    found = await compass.recommended(home.org.id, specification_id, revision=revision, after=cursor, limit=limit + 1)
    shown = found[:limit]
    pairs = zip(shown, [*found[1:], None], strict=False)
    return page_of([RecommendedView.of(each, before) for each, before in pairs], [each.id for each in shown], limit)
