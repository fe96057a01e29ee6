"""Certificates of the authorities that HTTPS connections trust."""

import os
import ssl
from pathlib import Path

import httpx

from kuber.errors import SettingsError


def trusted(ca: Path | None, *, also_usual: bool = False) -> ssl.SSLContext:
    """Return a context that trusts the certificates in `ca`, without it the usual ones, with `also_usual` both.

    The usual ones are those of SSL_CERT_FILE or SSL_CERT_DIR, otherwise Mozilla's, which come with httpx.
    Raises SettingsError when they cannot be read.
    """
    if ca is None:
        return _usual()
    try:
        if not also_usual:
            return ssl.create_default_context(cafile=str(ca))
        context = _usual()
        context.load_verify_locations(ca)
        return context
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"The certificates in {ca} cannot be used: {_reason(error)}.") from None


def no_authorities() -> ssl.SSLContext:
    """Return a context that trusts nobody: reading certificates takes longer than a request over plain http."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _usual() -> ssl.SSLContext:
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if value := os.environ.get(variable):
            return _from_variable(variable, value)
    return httpx.create_ssl_context(trust_env=False)


def _from_variable(variable: str, value: str) -> ssl.SSLContext:
    try:
        if variable == "SSL_CERT_FILE":
            return ssl.create_default_context(cafile=value)
        # OpenSSL reads the folders when a server shows its certificate, and takes missing ones for empty ones.
        if any(Path(folder).is_dir() for folder in value.split(os.pathsep)):
            return ssl.create_default_context(capath=value)
        reason = "there is no such folder"
    except (OSError, ssl.SSLError) as error:
        reason = _reason(error)
    raise SettingsError(
        f"The variable {variable} names {value}, whose certificates cannot be used ({reason}); correct or unset it."
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it holds no certificate"
    return (error.strerror or str(error)).lower()
