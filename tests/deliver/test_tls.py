"""TLS with real certificates: what is trusted is used, what is not is refused, and replaced files are noticed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from hostagent.clock import Clock
from hostagent.deliver.outputs.http import HttpOptions, HttpOutput
from hostagent.errors import TemporaryError
from hostagent.model import Outcome
from tests.deliver.hostile import Conversation, HostileServer, hostile
from tests.deliver.test_http import answering, delivery


def server_context(ca: trustme.CA, name: str = "localhost", *, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


def ca_file(ca: trustme.CA, folder: Path, name: str = "ca.pem") -> str:
    path = folder / name
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def output(server: HostileServer, **options: str) -> HttpOutput:
    return HttpOutput(HttpOptions(url=server.url(), timeout_s=30.0, **options), Clock())  # type: ignore[arg-type]


def test_a_certificate_of_the_given_ca_is_trusted_and_the_connection_kept(tmp_path: Path) -> None:
    ca = trustme.CA()
    with hostile(answering(200), tls=server_context(ca)) as server:
        client = output(server, ca_file=ca_file(ca, tmp_path))
        for _ in range(3):
            assert client.send(delivery(b"x" * 100_000)).outcome is Outcome.ACKED
        client.close()
    assert server.connections == 1
    assert {len(request.body) for request in server.requests} == {100_000}


def test_a_certificate_of_another_ca_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with hostile(answering(200), tls=server_context(trustme.CA())) as server:
        client = output(server, ca_file=ca_file(trustme.CA(), tmp_path))
        with pytest.raises(TemporaryError, match=r"certificate that is not trusted .*; set ca_file"):
            client.send(delivery())
        client = output(server)
        with pytest.raises(TemporaryError, match=r"certificate that is not trusted"):
            client.send(delivery())
    assert server.requests == []


def test_a_certificate_for_another_name_is_refused_unless_that_name_is_expected(tmp_path: Path) -> None:
    ca = trustme.CA()
    trust = ca_file(ca, tmp_path)
    with hostile(answering(200), tls=server_context(ca, "logs.example")) as server:
        client = output(server, ca_file=trust)
        with pytest.raises(TemporaryError, match=r"not valid for 'localhost'.*set server_name"):
            client.send(delivery())
        client = output(server, ca_file=trust, server_name="logs.example")
        assert client.send(delivery()).outcome is Outcome.ACKED
        client.close()


def test_a_client_certificate_is_shown_and_its_absence_noticed(tmp_path: Path) -> None:
    ca, clients = trustme.CA(), trustme.CA()
    trust = ca_file(ca, tmp_path)
    identity = clients.issue_cert("agent.example")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in identity.cert_chain_pems))
    key.write_bytes(identity.private_key_pem.bytes())
    with hostile(answering(200), tls=server_context(ca, clients=clients)) as server:
        client = output(server, ca_file=trust, client_certificate_file=str(certificate), client_key_file=str(key))
        assert client.send(delivery()).outcome is Outcome.ACKED
        client.close()
        client = output(server, ca_file=trust)
        with pytest.raises(TemporaryError):
            client.send(delivery())
        client.close()
    assert len(server.requests) == 1


def test_a_replaced_ca_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    trust = ca_file(old, tmp_path)
    with hostile(answering(200), tls=server_context(new)) as server:
        client = output(server, ca_file=trust)
        with pytest.raises(TemporaryError, match="not trusted"):
            client.send(delivery())
        ca_file(new, tmp_path, "new.pem")
        (tmp_path / "new.pem").replace(trust)
        assert client.send(delivery()).outcome is Outcome.ACKED
        (tmp_path / "ca.pem").unlink()
        with pytest.raises(TemporaryError, match=r"ca\.pem can't be read"):
            client.send(delivery())
        client.close()


def test_files_that_hold_no_certificate_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    with hostile(answering(200), tls=server_context(trustme.CA())) as server:
        for options in ({"ca_file": str(junk)}, {"client_certificate_file": str(junk)}):
            with pytest.raises(TemporaryError, match=r"no usable certificate, key or CA in .*junk\.pem"):
                output(server, **options).send(delivery())


def test_a_server_without_tls_is_not_spoken_to_in_clear() -> None:
    def baffled(conversation: Conversation) -> bool:
        return conversation.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with hostile(answering(200), early=baffled) as server:
        options = HttpOptions(url=server.url().replace("http://", "https://"), timeout_s=30.0)
        with pytest.raises(TemporaryError, match=r"over TLS|before its answer"):
            HttpOutput(options, Clock()).send(delivery())
    assert server.requests == []
