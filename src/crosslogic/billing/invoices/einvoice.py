"""An issued invoice as the Invoice Registration Portal of India takes it. Pure.

Source of the fields: e-invoice schema INV-01, version 1.1, notified by Notification No. 60/2020-Central Tax of 30 July
2020 (einvoice1.gst.gov.in, "e-Invoice JSON format"). Values are rupees with two decimals; the portal takes numbers.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from crosslogic.billing.tax.data import gst_digits_of
from crosslogic.kernel.errors import Conflict

_TAXED = ("usage", "reserved", "fee")
_ABROAD = "96"  # the state code of everything outside India
_UNIT = "OTH"


def einvoice_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Conflict for an invoice that is none of GST between businesses, which the portal does not register."""
    tax = document["tax"]
    if tax["scheme"] != "gst" or tax["supply"] not in ("B2B", "EXPWP", "EXPWOP"):
        raise Conflict("only GST invoices to businesses and abroad are e-invoices; the customer has no GSTIN")
    seller, buyer = document["seller"], document["buyer"]
    items = _items(document)
    return {
        "Version": "1.1",
        "TranDtls": {"TaxSch": "GST", "SupTyp": tax["supply"], "RegRev": "N"},
        "DocDtls": {"Typ": "INV", "No": document["number"], "Dt": _day(document["issued_on"])},
        "SellerDtls": _party(seller, seller["gstin"]),
        "BuyerDtls": {**_party(buyer, buyer["gstin"] or "URP"), "Pos": _place(document)},
        "ItemList": items,
        "ValDtls": _values(document),
    }


def _items(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One item for each line that is taxed; credits lower them from the first on, and taxes are theirs by share, with
    the last item taking what rounding leaves."""
    lines = [line for line in document["lines"] if line["kind"] in _TAXED]
    left = document["totals"]["credit_minor"]
    taxed: list[tuple[Mapping[str, Any], int, int]] = []
    for line in lines:
        off = max(0, min(left, line["amount_minor"]))
        left -= off
        taxed.append((line, off, line["amount_minor"] - off))
    whole = sum(amount for _line, _off, amount in taxed)
    amounts = {name: _part(document, name) for name in ("CGST", "SGST", "UTGST", "IGST")}
    given = dict.fromkeys(amounts, 0)
    items, reached = [], 0
    for n, (line, off, amount) in enumerate(taxed, 1):
        reached += amount
        share = {}
        for name, of_all in amounts.items():
            upto = of_all * reached // whole if whole else 0
            share[name] = upto - given[name]
            given[name] = upto
        items.append(_item(n, line, off, amount, share, document))
    return items


def _item(
    n: int, line: Mapping[str, Any], off: int, amount: int, share: Mapping[str, int], document: Mapping[str, Any]
) -> dict[str, Any]:
    parts = document["tax"]["parts"]
    local = share["SGST"] + share["UTGST"]
    return {
        "SlNo": str(n),
        "PrdDesc": _text(" ".join(filter(None, (line["description"], line["region"]))), 300),
        "IsServc": "Y",
        "HsnCd": document["tax"]["service_code"],
        "Qty": 1,
        "Unit": _UNIT,
        "UnitPrice": _rupees(line["amount_minor"]),
        "TotAmt": _rupees(line["amount_minor"]),
        "Discount": _rupees(off),
        "AssAmt": _rupees(amount),
        "GstRt": float(sum(Decimal(part["percent"]) for part in parts)),
        "IgstAmt": _rupees(share["IGST"]),
        "CgstAmt": _rupees(share["CGST"]),
        "SgstAmt": _rupees(local),
        "TotItemVal": _rupees(amount + share["IGST"] + share["CGST"] + local),
    }


def _values(document: Mapping[str, Any]) -> dict[str, Any]:
    totals = document["totals"]
    net = totals["total_minor"] - totals["tax_minor"]
    return {
        "AssVal": _rupees(net),
        "CgstVal": _rupees(_part(document, "CGST")),
        "SgstVal": _rupees(_part(document, "SGST") + _part(document, "UTGST")),
        "IgstVal": _rupees(_part(document, "IGST")),
        "TotInvVal": _rupees(totals["total_minor"]),
    }


def _part(document: Mapping[str, Any], name: str) -> int:
    return sum(int(part["amount_minor"]) for part in document["tax"]["parts"] if part["name"] == name)


def _party(party: Mapping[str, Any], gstin: str) -> dict[str, Any]:
    address = party["address"]
    abroad = gstin == "URP"
    digits = _ABROAD if abroad else gstin[:2]
    street = " ".join(address["lines"])
    found = {
        "Gstin": gstin,
        "LglNm": _text(party["legal_name"], 100),
        "Addr1": _text(street or address["city"] or party["legal_name"], 100),
        "Loc": _text(address["city"] or "-", 50),
        "Pin": 999999 if abroad else _pin(address["postal_code"]),
        "Stcd": digits,
    }
    return {**found, **({"Em": party["email"]} if party.get("email") else {})}


def _place(document: Mapping[str, Any]) -> str:
    place = str(document["tax"]["place_of_supply"] or "")[:2]
    return place or gst_digits_of(document["buyer"]["address"]["state"]) or _ABROAD


def _pin(postal_code: str) -> int:
    digits = "".join(c for c in postal_code if c.isdigit())
    if len(digits) != 6:
        raise Conflict("an e-invoice needs the six digits of the PIN code in both addresses")
    return int(digits)


def _text(value: str, most: int) -> str:
    """At least three characters, as the schema asks."""
    return value[:most].ljust(3, ".")


def _day(iso: str) -> str:
    return date.fromisoformat(iso).strftime("%d/%m/%Y")


def _rupees(amount_minor: int) -> float:
    """JSON numbers with two decimals: exact as written, up to 90 trillion paise."""
    return float(Decimal(amount_minor) / 100)
