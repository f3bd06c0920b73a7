"""Join tokens and certificates keep their promises on both databases; every refusal leaves a trace."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import trust_sql
from crosslogic.fleet.authority import Authority, create_authority, load_authority
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.join_token import PREFIX, new_token, read_token
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.fleet.trust import Joined, JoinRequest, Trust
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError, Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.store.tables import audit_log, node_join_tokens, orgs
from crosslogic.tenancy.audit import Actor, ActorKind
from crosslogic.tenancy.audit_sql import AuditTrail

ACME, GLOBEX = OrgId("org_acme"), OrgId("org_globex")
OPERATOR = AuditTrail(Actor(ActorKind.OPERATOR, "op_1"))
ADDRESS = "203.0.113.9"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authority(clock: ManualClock) -> Authority:
    return create_authority(clock.now())


@pytest.fixture
def trust(engine: AsyncEngine, clock: ManualClock, authority: Authority) -> Trust:
    return Trust(engine, authority, clock, lambda node: OPERATOR.of(Actor(ActorKind.NODE, node)))


@pytest.fixture(autouse=True)
async def two_orgs(engine: AsyncEngine, clock: ManualClock) -> None:
    async with engine.begin() as conn:
        for org_id in (ACME, GLOBEX):
            values = {"id": org_id, "name": org_id, "status": "active", "billing_plan": "free"}
            await conn.execute(insert(orgs).values(**values, allowed_models=[], limits={}, created_at=clock.now()))


def csr(*names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    request = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def asked(text: str, csr_der: bytes | None = None, node_id: str = "") -> JoinRequest:
    token, body = read_token(text), csr_der or csr()
    return JoinRequest(token.public_key, token.signature(body, node_id), body, node_id)


async def joined(trust: Trust, node_id: str = "", org_id: OrgId | None = ACME) -> Joined:
    made = await trust.create_token(OPERATOR, org_id=org_id, region="in-mumbai")
    return await trust.join(asked(made.text, node_id=node_id), ADDRESS)


def der_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


async def refusals(engine: AsyncEngine) -> list[str]:
    query = select(audit_log.c.after).where(audit_log.c.action == "node.refuse").order_by(audit_log.c.seq)
    async with engine.connect() as conn:
        return [msgspec.json.decode(text)["reason"] for text in (await conn.execute(query)).scalars()]


async def test_a_token_makes_one_node_of_its_org_and_region(trust: Trust, authority: Authority) -> None:
    made = await joined(trust, "gpu-7")
    assert (made.record.node_id, made.record.org_id, made.record.region) == ("gpu-7", ACME, "in-mumbai")
    certificate = x509.load_pem_x509_certificate(made.certificate_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://crosslogic/org/org_acme/node/gpu-7")]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (await trust.verify(der_of(made.certificate_pem), ADDRESS)) == made.record
    platform = await joined(trust, org_id=None)
    assert platform.record.identity == NodeIdentity(platform.record.node_id)


async def test_the_database_holds_no_token(trust: Trust, engine: AsyncEngine) -> None:
    made = await trust.create_token(OPERATOR, org_id=None, region="eu")
    token = read_token(made.text)
    async with engine.connect() as conn:
        row = (await conn.execute(select(node_join_tokens))).mappings().one()
        log = (await conn.execute(select(audit_log.c.after))).scalars().all()
    kept = repr(dict(row)) + repr(log) + repr(made)
    assert made.text.startswith(PREFIX)
    for secret in (made.text, made.text.removeprefix(PREFIX), token.seed.hex(), token.public_key.hex()):
        assert secret not in kept
    assert token.public_key not in bytes(row["token_hash"])


async def test_a_token_is_good_once_also_when_two_come_at_the_same_time(trust: Trust, engine: AsyncEngine) -> None:
    made = await trust.create_token(OPERATOR, org_id=ACME, region="eu")
    results = await asyncio.gather(*(trust.join(asked(made.text), ADDRESS) for _ in range(4)), return_exceptions=True)
    kinds = [type(result) for result in results]
    assert (kinds.count(Joined), kinds.count(Unauthenticated)) == (1, 3)
    with pytest.raises(Unauthenticated, match="used"):
        await trust.join(asked(made.text), ADDRESS)
    assert set(await refusals(engine)) == {"join_token_used"}


async def test_expired_revoked_and_invented_tokens_are_refused_and_written_down(
    trust: Trust, clock: ManualClock, engine: AsyncEngine, authority: Authority
) -> None:
    old = await trust.create_token(OPERATOR, org_id=ACME, region="eu", ttl=timedelta(minutes=5))
    gone = await trust.create_token(OPERATOR, org_id=ACME, region="eu")
    assert (await trust.revoke_token(OPERATOR, gone.record.id)).status(clock.now()) == "revoked"
    with pytest.raises(Unauthenticated, match="revoked"):
        await trust.join(asked(gone.text), ADDRESS)
    clock.advance(300)
    with pytest.raises(Unauthenticated, match="expired"):
        await trust.join(asked(old.text), ADDRESS)
    with pytest.raises(Unauthenticated, match="unknown"):
        await trust.join(asked(new_token(authority.fingerprint).text), ADDRESS)
    stolen = asked(old.text)
    with pytest.raises(Unauthenticated, match="not signed"):  # somebody else's request under a captured signature
        await trust.join(msgspec.structs.replace(stolen, csr_der=csr()), ADDRESS)
    assert await refusals(engine) == [
        "join_token_revoked",
        "join_token_expired",
        "join_token_unknown",
        "join_signature",
    ]
    with pytest.raises(NotFound):
        await trust.revoke_token(OPERATOR, "join_none")


async def test_a_request_for_anothers_name_is_refused_at_joining_and_at_renewal(
    trust: Trust, engine: AsyncEngine
) -> None:
    made = await trust.create_token(OPERATOR, org_id=ACME, region="eu")
    theirs = NodeIdentity(NodeId("gpu-7"), GLOBEX).uri
    with pytest.raises(Forbidden):
        await trust.join(asked(made.text, csr(theirs), "gpu-7"), ADDRESS)
    ours = NodeIdentity(NodeId("gpu-7"), ACME).uri
    with pytest.raises(Forbidden):
        await trust.join(asked(made.text, csr(ours, theirs), "gpu-7"), ADDRESS)
    held = (await trust.join(asked(made.text, csr(ours), "gpu-7"), ADDRESS)).record  # the token was not spent
    with pytest.raises(Forbidden):
        await trust.renew(held, csr(theirs), ADDRESS)
    assert await refusals(engine) == ["foreign_identity"]  # the same within a minute is written down once


async def test_a_node_id_belongs_to_whoever_holds_its_certificate(trust: Trust, engine: AsyncEngine) -> None:
    await joined(trust, "gpu-7", ACME)
    with pytest.raises(Conflict):
        await joined(trust, "gpu-7", GLOBEX)
    assert await refusals(engine) == ["node_id_taken"]
    await trust.revoke(OPERATOR, "gpu-7")
    assert (await joined(trust, "gpu-7", GLOBEX)).record.org_id == GLOBEX


async def test_nobody_joins_as_a_node_that_an_operator_registered_for_another(
    trust: Trust, engine: AsyncEngine, clock: ManualClock
) -> None:
    theirs = Registration(endpoint_url="http://10.0.0.1:1", models=("m",), node_id=NodeId("gpu-7"), org_id=GLOBEX)
    await Registry(engine, clock).register(theirs)
    with pytest.raises(Conflict):
        await joined(trust, "gpu-7", ACME)


async def test_a_certificate_is_renewed_revoked_and_expires(
    trust: Trust, clock: ManualClock, engine: AsyncEngine, authority: Authority
) -> None:
    first = await joined(trust, "gpu-7")
    clock.advance(5 * 86_400)
    second = await trust.renew(first.record, csr(), ADDRESS)
    clock.advance(3 * 86_400)
    with pytest.raises(Unauthenticated, match="expired"):
        await trust.verify(der_of(first.certificate_pem), ADDRESS)
    assert (await trust.verify(der_of(second.certificate_pem), ADDRESS)).serial == second.record.serial
    other = Trust(engine, authority, clock, lambda node: OPERATOR)
    await other.verify(der_of(second.certificate_pem), ADDRESS)
    assert [one.serial for one in await trust.revoke(OPERATOR, "gpu-7")] == [second.record.serial]
    assert await trust.revoke(OPERATOR, "gpu-7") == []
    other.forget(second.record.serial)  # as the change feed does
    for service in (trust, other):
        with pytest.raises(Unauthenticated, match="revoked"):
            await service.verify(der_of(second.certificate_pem), ADDRESS)
    with pytest.raises(Unauthenticated):
        await trust.renew(second.record, csr(), ADDRESS)
    with pytest.raises(NotFound):
        await trust.revoke(OPERATOR, "gpu-8")
    assert await refusals(engine) == ["expired", "revoked", "revoked"]


async def test_what_the_ca_signed_behind_our_back_counts_for_nothing(
    trust: Trust, clock: ManualClock, authority: Authority, engine: AsyncEngine
) -> None:
    forged = authority.sign(csr(), NodeIdentity(NodeId("gpu-7"), GLOBEX), clock.now(), timedelta(days=1))
    with pytest.raises(Unauthenticated, match="unknown"):
        await trust.verify(der_of(forged.certificate_pem), ADDRESS)
    assert await refusals(engine) == ["unknown_certificate"]


async def test_what_expired_long_ago_is_forgotten(trust: Trust, clock: ManualClock, engine: AsyncEngine) -> None:
    await joined(trust, "gpu-7")
    clock.advance(20 * 86_400)
    newer = await joined(trust, "gpu-8")
    clock.advance(18 * 86_400)
    assert await trust_sql.prune(engine, before=clock.now() - trust_sql.RETENTION) == 2
    assert [one.serial for one in await trust.certificates()] == [newer.record.serial]
    assert [one.used_by for one in await trust.tokens()] == ["gpu-8"]


async def test_refusals_do_not_fill_the_log(trust: Trust, clock: ManualClock, engine: AsyncEngine) -> None:
    for number in range(200):
        await trust.refuse("expired", f"203.0.113.{number}")
    assert len(await refusals(engine)) == 60
    clock.advance(61)
    await trust.refuse("expired", "203.0.113.1")
    assert len(await refusals(engine)) == 61


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x30\x03\x02\x01\x01",
        csr(key=rsa.generate_private_key(65537, 1024)),
        csr(key=ec.generate_private_key(ec.SECP192R1())),
        b"\0" * 20_000,
    ],
)
async def test_requests_that_cannot_be_signed_are_refused(trust: Trust, body: bytes) -> None:
    made = await trust.create_token(OPERATOR, org_id=ACME, region="eu")
    with pytest.raises(InvalidRequest):
        await trust.join(asked(made.text, body or b"x"), ADDRESS)
    await trust.join(asked(made.text), ADDRESS)  # the token was not spent


def test_a_given_ca_is_used_and_a_wrong_one_refused(clock: ManualClock, authority: Authority) -> None:
    again = load_authority(authority.ca_pem, authority.private_pem())
    assert again.fingerprint == authority.fingerprint
    other = create_authority(clock.now())
    for certificate, key in (
        (authority.ca_pem, other.private_pem()),
        (b"no PEM", authority.private_pem()),
        (authority.server_pem(clock.now()).partition(b"-----END PRIVATE KEY-----\n")[2], authority.private_pem()),
    ):
        with pytest.raises(ConfigurationError) as raised:
            load_authority(certificate, key)
        assert "PRIVATE" not in str(raised.value)
    assert "PRIVATE" not in repr(authority)
