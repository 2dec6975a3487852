"""What stands between a client and a Redis: a certificate that is not trusted, or TLS that only one of them speaks."""

from __future__ import annotations

import socket
import ssl

#: What says nothing to a TLS handshake for so long is asked without TLS.
_HANDSHAKE_S = 1.0


def distrust(error: BaseException | None) -> str:
    """What is wrong with the server's certificate, if that is what lies behind an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {error.verify_message}"
        error = error.__cause__ or error.__context__
    return ""


def is_without_tls(host: str, port: int) -> bool:
    """Whether something is there that does not speak TLS. The client would wait for it, and try again and again.

    A Redis without TLS takes a handshake for half a command and waits for the rest. Who it is that does speak it, the
    client looks at later.
    """
    try:
        return _shakes_hands(host, port) is False
    except TimeoutError:
        return _answers_plainly(host, port)
    except OSError:
        return False


def is_with_tls(host: str, port: int) -> bool:
    """Whether something is there that speaks TLS. It hangs up on a client that does not, again and again."""
    try:
        return _shakes_hands(host, port)
    except OSError:
        return False


def _shakes_hands(host: str, port: int) -> bool:
    """Whether what is there answers in TLS. Raises `OSError` where it does not answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _HANDSHAKE_S) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
        return True
    except ssl.SSLEOFError as error:
        raise ConnectionResetError from error
    except ssl.SSLError as error:
        return error.reason != "WRONG_VERSION_NUMBER"


def _answers_plainly(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _HANDSHAKE_S) as there:
            there.sendall(b"PING\r\n")
            return there.recv(1) in (b"+", b"-")
    except OSError:
        return False
