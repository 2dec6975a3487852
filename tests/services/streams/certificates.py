"""An authority of the test's own, and what it signs: for servers on 127.0.0.1."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PEM = serialization.Encoding.PEM


class Certified(NamedTuple):
    """PEM files: the authority, a certificate that it signed, and that one's key."""

    ca: Path
    certificate: Path
    key: Path


def made(folder: Path, name: str) -> Certified:
    """A new authority in a folder, and a server's certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def signed(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> x509.Certificate:
        built = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )  # fmt: skip
        for extension, critical in extensions:
            built = built.add_extension(extension, critical)
        return built.sign(issuer_key, hashes.SHA256())

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = signed(
        issuer, issuer_key.public_key(), (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key()), False),
    )  # fmt: skip
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = signed(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")]), key.public_key(),
        (x509.BasicConstraints(ca=False, path_length=None), True), (names, False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    )  # fmt: skip
    found = Certified(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    found.ca.write_bytes(authority.public_bytes(_PEM))
    found.certificate.write_bytes(server.public_bytes(_PEM))
    plain = serialization.NoEncryption()
    found.key.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain))
    return found
