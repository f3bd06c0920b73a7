"""`/webhooks/stripe`, `/webhooks/paypal`: where payment providers tell what has happened.

They show no key of ours: what they send is signed, over the body as it came. It is stored, and acted on later.
"""

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from crosslogic.api.services import ApiServices, services_of
from crosslogic.kernel.errors import NotFound

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class Received(BaseModel):
    received: bool = True
    known: bool  # it had come before


@router.post("/{provider}")
async def take(provider: str, request: Request, services: ApiServices = Depends(services_of)) -> Received:
    """Take an event. Only what its provider has signed just now is taken; 404 where payments are off."""
    if services.payments is None:
        raise NotFound("there is nothing at this address")
    headers = {name.lower(): value for name, value in request.headers.items()}
    new = await services.payments.inbound.take(provider, await request.body(), headers)
    return Received(known=not new)
