"""Values of exports."""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import OrgId


class Mode(StrEnum):
    """How an org's usage is exported: exactly one of them."""

    STRIPE_INVOICE = "stripe_invoice"  # our rated invoices, line by line
    STRIPE_METER = "stripe_meter"  # tokens by the hour, which Stripe rates
    NONE = "none"  # nothing leaves this site


class WindowStatus(StrEnum):
    SEALED = "sealed"  # written down; nothing was sent
    SENDING = "sending"  # may have arrived
    SENT = "sent"  # taken; a meter event may still be rejected
    VERIFIED = "verified"  # found in the provider's own sums
    DOUBTFUL = "doubtful"  # too old to be sent again: the provider's sums have to say
    REJECTED = "rejected"  # the provider says that it does not count
    REPLACED = "replaced"  # it never counted; another window tells its quantity


COUNTING = (WindowStatus.SENT, WindowStatus.VERIFIED)


class Window(msgspec.Struct, frozen=True):
    """A sum of one org's usage of one meter in one hour, or one invoice; told to the provider once.

    The sums of all windows that are not REPLACED are all usage up to `export_modes.sealed_seq`, each token once.
    """

    id: str  # what is sent as identifier
    org_id: OrgId
    mode: Mode
    meter: str
    hour: datetime
    n: int
    quantity: int
    from_seq: int  # of the charges that it may hold: behind this one
    through_seq: int
    status: WindowStatus
    created_at: datetime
    event_time: datetime | None = None
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    sendings: int = 0
    next_step_at: datetime | None = None
    billing_failed: bool = False
    failure: str | None = None
    provider_ref: str | None = None
    replaces: str | None = None
    resolved_at: datetime | None = None


class Counted(msgspec.Struct, frozen=True):
    """What an export needs to know of a charge."""

    seq: int
    at: datetime
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class OrgExport(msgspec.Struct, frozen=True):
    """One row of `export_modes`."""

    org_id: OrgId
    mode: Mode
    since: datetime
    sealed_seq: int
