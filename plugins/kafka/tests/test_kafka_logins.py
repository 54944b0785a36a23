"""TLS with each mechanism of SASL, and rights that are taken away and given back."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does not list some
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from skewless.contract.errors import StoreError
from skewless_kafka.client import KafkaSender, describe_topic
from tests.contract.streams import KafkaPlace, Log, N, Worker, numbered, poll_until, send, spread
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaBroker, kafka_broker
from tests.worlds.waiting import until

pytestmark = pytest.mark.soak
_MODULES = "org.apache.kafka.common.security"
# The validator of unsigned tokens is meant for tests; the client's side is the same.
_PROPERTIES = f"""
listeners=SASL_SSL://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=SASL_SSL://localhost:{{port}}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
security.inter.broker.protocol=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={_MODULES}.plain.PlainLoginModule required username="admin" \\
  password="a" user_admin="a" user_guest="g";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={_MODULES}.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={_MODULES}.oauthbearer.OAuthBearerLoginModule required \\
  unsecuredLoginStringClaim_sub="admin";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location=KEYS
ssl.truststore.type=PEM
ssl.truststore.location=AUTHORITY
"""


def part(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


class TokenEndpoint(BaseHTTPRequestHandler):
    """Gives unsigned tokens of the user ``admin`` to a client."""

    def do_POST(self) -> None:
        now = int(time.time())
        token = f"{part({'alg': 'none'})}.{part({'sub': 'admin', 'iat': now, 'exp': now + 300})}."
        body = json.dumps({"access_token": token, "token_type": "bearer", "expires_in": 300}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def token_endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def login(authority: Authority, user: str, password: str, mechanism: str = "PLAIN") -> dict[str, str]:
    secrets = {"sasl.username": user, "sasl.password": password} if user else {}
    tls = {"security.protocol": "SASL_SSL", "ssl.ca.location": str(authority.path)}
    return {**tls, "sasl.mechanism": mechanism, **secrets}


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    certificate, key = authority.issue("kafka", dns=("localhost",))
    keys = authority.folder / "kafka.pem"
    keys.write_bytes(key.read_bytes() + certificate.read_bytes())
    properties = _PROPERTIES.replace("KEYS", str(keys)).replace("AUTHORITY", str(authority.path))
    # Its first address is a number, which the certificate does not have.
    admin = {**login(authority, "admin", "a"), "ssl.endpoint.identification.algorithm": "none"}
    with kafka_broker(tmp_path_factory.mktemp("secured"), properties=properties, client=admin) as broker:
        broker.bootstrap = broker.bootstrap.replace("127.0.0.1", "localhost")
        yield broker


def assert_exchanges(place: KafkaPlace) -> None:
    log = Log()
    facts = describe_topic(place.topic, place.broker.bootstrap, place.settings, 20.0)
    assert (facts.partitions, facts.brokers, facts.has_id) == (N, 1, True)
    sender = KafkaSender(place.broker.bootstrap, place.topic, settings=place.settings, timeout_s=20.0)
    assert sender.broker_hosts() == ["localhost"]
    sender.send(numbered(20), spread(20))
    sender.close()
    worker = Worker(place, log)
    poll_until([worker], log.has(20))
    assert log.in_any_order() == sorted(numbered(20))
    worker.stream.close()


def test_plain_and_scram_log_in_over_tls(secured: KafkaBroker, authority: Authority) -> None:
    place = KafkaPlace(secured)
    place.settings = login(authority, "admin", "a")
    assert_exchanges(place)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    upsert = UserScramCredentialUpsertion("admin", info, b"secret")
    admin = secured.admin()
    admin.alter_user_scram_credentials([upsert])["admin"].result(20)
    place = KafkaPlace(secured)
    place.settings = login(authority, "admin", "secret", "SCRAM-SHA-512")
    assert_exchanges(place)
    place.settings = login(authority, "admin", "wrong", "SCRAM-SHA-512")
    refused = Worker(place, Log())
    with pytest.raises(StoreError, match="correct the address, the permissions"):
        poll_until([refused], lambda: False)
    refused.stream.close()


def test_tokens_of_an_endpoint_log_in(secured: KafkaBroker, authority: Authority) -> None:
    place = KafkaPlace(secured)
    with token_endpoint() as url:
        oidc = {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.token.endpoint.url": url}
        client = {"sasl.oauthbearer.client.id": "id", "sasl.oauthbearer.client.secret": "secret"}
        place.settings = {**login(authority, "", "", "OAUTHBEARER"), **oidc, **client}
        assert_exchanges(place)


def test_a_certificate_of_another_authority_is_trouble(secured: KafkaBroker, tmp_path: Path) -> None:
    place = KafkaPlace(secured)
    place.settings = login(Authority(tmp_path / "other"), "admin", "a")
    worker = Worker(place, Log())
    poll_until([worker], lambda: "certificate" in (worker.stream.trouble or ""))
    worker.stream.close()


def grants(place: KafkaPlace, operations: tuple[AclOperation, ...]) -> list[AclBinding]:
    topic = (ResourceType.TOPIC, place.topic, ResourcePatternType.LITERAL, "User:guest", "*")
    return [AclBinding(*topic, operation, AclPermissionType.ALLOW) for operation in operations]


@pytest.mark.parametrize("operations", [(AclOperation.READ,), (AclOperation.READ, AclOperation.DESCRIBE)], ids=str)
def test_rights_that_are_taken_away_are_waited_for(
    secured: KafkaBroker, authority: Authority, operations: tuple[AclOperation, ...]
) -> None:
    place, log, admin = KafkaPlace(secured), Log(), secured.admin()
    place.settings = login(authority, "admin", "a")
    send(place, numbered(20), spread(20))
    everything = (AclOperation.READ, AclOperation.DESCRIBE)
    group = AclBinding(
        ResourceType.GROUP, "*", ResourcePatternType.LITERAL, "User:guest", "*", AclOperation.READ,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    for answer in admin.create_acls([group, *grants(place, everything)]).values():
        answer.result(20)
    place.settings = login(authority, "guest", "g")
    worker = Worker(place, log)
    poll_until([worker], log.has(20))
    taken = [filter_of(grant) for grant in grants(place, operations)]
    for answer in admin.delete_acls(taken).values():
        answer.result(20)
    place.settings = login(authority, "admin", "a")
    send(place, numbered(20, 20), spread(20))
    poll_until([worker], lambda: "authorization" in (worker.stream.trouble or "").lower())
    n = len(log.payloads())
    deadline = time.monotonic() + 7.0  # longer than the topic is asked for
    while time.monotonic() < deadline:
        worker.poll()
        assert worker.stream.trouble is not None or len(log.payloads()) > n
    for answer in admin.create_acls(grants(place, operations)).values():
        answer.result(20)
    poll_until([worker], lambda: log.has(40)() and worker.stream.trouble is None and worker.all_drained)
    assert log.in_any_order() == sorted(numbered(40))
    log.assert_in_order()
    worker.stream.close()


def filter_of(grant: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        grant.restype,
        grant.name,
        grant.resource_pattern_type,
        grant.principal,
        grant.host,
        grant.operation,
        grant.permission_type,
    )


def test_a_sender_whose_right_is_taken_away_goes_on_when_it_is_back(secured: KafkaBroker, authority: Authority) -> None:
    place, admin = KafkaPlace(secured), secured.admin()
    write = grants(place, (AclOperation.WRITE,))
    sender = KafkaSender(secured.bootstrap, place.topic, settings=login(authority, "guest", "g"), timeout_s=20.0)
    refusals = set[object]()

    def is_stored(body: bytes) -> bool:
        try:
            sender.send([body], ["k"])
        except StoreError as error:
            refusals.add(error.value)
            return False
        return True

    assert not is_stored(b"never")
    admin.create_acls(write)[write[0]].result(20)
    until(lambda: is_stored(b"0"))
    for answer in admin.delete_acls([filter_of(write[0])]).values():
        answer.result(20)
    until(lambda: not is_stored(b"1"))
    admin.create_acls(write)[write[0]].result(20)
    until(lambda: is_stored(b"2"))
    sender.close()
    assert refusals == {"TOPIC_AUTHORIZATION_FAILED"}
    stored = [body for lane in secured.read(place.topic) for body in lane]
    assert list(dict.fromkeys(stored)) in ([b"0", b"2"], [b"0", b"1", b"2"])
