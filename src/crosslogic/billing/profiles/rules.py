"""What a billing profile may say. Pure; raises InvalidRequest.

Invariants: no control or direction-changing character ever gets onto an invoice; a tax number that is kept has the
right form and check digit, and agrees with the address.
"""

import unicodedata
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from stdnum import get_cc_module
from stdnum.exceptions import ValidationError
from stdnum.in_ import gstin as gstin_number

from crosslogic.billing.profiles.model import Address, BillingProfile
from crosslogic.billing.tax.data import gst_state_of_code, gst_states
from crosslogic.kernel.errors import InvalidRequest

MAX_TEXT = 200
MAX_LINES = 4
_BANNED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # Indic scripts and emoji are written with them


def checked(profile: BillingProfile) -> BillingProfile:
    """The profile in the form in which it is kept."""
    address = _address(profile.address)
    gstin = None if profile.gstin is None else gstin_of(profile.gstin, "gstin")
    if gstin is not None:
        _check_gstin_address(gstin, address)
    vat_id = None if profile.vat_id is None else vat_id_of(profile.vat_id, address.country)
    if profile.time_zone is not None:
        zone(profile.time_zone)
    _within(profile.invoice_day, 1, 28, "invoice_day")
    _within(profile.payment_terms_days, 0, 365, "payment_terms_days")
    _within(profile.grace_days, 0, 365, "grace_days")
    return msgspec.structs.replace(
        profile,
        legal_name=_optional(profile.legal_name, "legal_name"),
        address=address,
        email=_email(profile.email),
        gstin=gstin,
        vat_id=vat_id,
        tax_exemption=_optional(profile.tax_exemption, "tax_exemption"),
        purchase_order=_optional(profile.purchase_order, "purchase_order"),
    )


def text(value: str, param: str) -> str:
    """Printable text in one line, whatever the script."""
    value = " ".join(unicodedata.normalize("NFC", value).split())
    if not value or len(value) > MAX_TEXT:
        raise InvalidRequest(f"{param} has 1 to {MAX_TEXT} characters", param=param)
    if any(unicodedata.category(c) in _BANNED and c not in _JOINERS for c in value):
        raise InvalidRequest(f"{param} has characters that cannot be printed", param=param)
    return value


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest("there is no such time zone; write one such as Asia/Kolkata", param="time_zone") from None


def gstin_of(given: str, param: str) -> str:
    try:
        return str(gstin_number.validate(given))
    except ValidationError:
        raise InvalidRequest(
            f"{param} is no valid GSTIN: 15 characters, the last one a check digit", param=param
        ) from None


def vat_id_of(given: str, country: str) -> str:
    """With the prefix of its country, which the address is in."""
    prefix = given.strip()[:2].upper()
    state = "GR" if prefix == "EL" else prefix
    module = get_cc_module(state.lower(), "vat") if prefix.isalpha() else None
    if module is None:
        raise InvalidRequest("vat_id begins with the code of its country, such as DE", param="vat_id")
    if country and country != state:
        raise InvalidRequest("vat_id is of another country than the address", param="vat_id")
    try:
        number = str(module.validate(given))
    except ValidationError:
        raise InvalidRequest("vat_id is no valid VAT number of its country", param="vat_id") from None
    return number if number.startswith(prefix) else prefix + number


def _address(address: Address) -> Address:
    country = address.country.strip().upper()
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise InvalidRequest("a country is two letters, such as IN", param="address.country")
    state = address.state.strip().upper()
    if country == "IN" and state:
        state = _indian_state(state)
    if len(state) > 10 or not state.isascii():
        raise InvalidRequest("a state is its code, such as KA or TX", param="address.state")
    if len(address.lines) > MAX_LINES:
        raise InvalidRequest(f"an address has at most {MAX_LINES} lines", param="address.lines")
    return Address(
        lines=tuple(text(line, "address.lines") for line in address.lines if line.strip()),
        city=_optional(address.city or None, "address.city") or "",
        state=state,
        postal_code=_optional(address.postal_code or None, "address.postal_code") or "",
        country=country,
    )


def _indian_state(given: str) -> str:
    """By its letters, its number in GSTINs or its name."""
    for code, state in gst_states().items():
        if given in (code, state.code, state.name.upper()):
            return state.code
    raise InvalidRequest("address.state is no state of India; write its code, such as KA", param="address.state")


def _check_gstin_address(gstin: str, address: Address) -> None:
    if address.country not in ("", "IN"):
        raise InvalidRequest("a GSTIN is of India, and the address is not", param="gstin")
    state = gst_state_of_code(gstin[:2])
    if state is None or (address.state and address.state != state.code):
        raise InvalidRequest("gstin is of another state than the address", param="gstin")


def _email(value: str | None) -> str | None:
    if value is None:
        return None
    local, at, domain = value.strip().rpartition("@")
    good = at and local and "." in domain and len(value) <= 254 and value.isascii()
    if not good or any(c.isspace() or not c.isprintable() or c in '<>",;' for c in value.strip()):
        raise InvalidRequest("email is no address", param="email")
    return value.strip()


def _optional(value: str | None, param: str) -> str | None:
    return None if value is None else text(value, param)


def _within(value: int | None, least: int, most: int, param: str) -> None:
    if value is not None and not least <= value <= most:
        raise InvalidRequest(f"{param} is from {least} to {most}", param=param)
