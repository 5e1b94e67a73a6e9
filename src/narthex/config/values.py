"""How a value is written: durations, sizes, addresses, URLs and the rest, from text and back.

In: text. Out: the value in the units of `narthex.types` (seconds, bytes, `(host, port)`), or a `ValueError` for people.
Pure. Proof: properties in `tests/config/test_values.py`.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from narthex.config.document import quote
from narthex.types import Address, Network, SecretSource

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
OWN_HEADERS = re.compile(
    "accept|accept-encoding|connection|content-(encoding|length|type)|expect|host|keep-alive|last-event-id|mcp-.*"
    "|proxy-connection|te|trailer|transfer-encoding|upgrade"
)
"""Headers that the gateway writes itself: a second one would contradict the first."""


def parse_duration(text: str) -> float:
    """Seconds of `250ms 30s 1m 2h 7d`."""
    match = re.fullmatch(r"([0-9]{1,12})(ms|s|m|h|d)", text)
    if match:
        return int(match[1]) * MILLISECONDS[match[2]] / 1000
    if re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError(f"a duration needs its unit: {text}ms, {text}s, {text}m, {text}h or {text}d")
    raise ValueError(f"{quote(text)} is not a duration; write 250ms, 30s, 1m, 2h or 7d")


def show_duration(seconds: float) -> str:
    amount = round(seconds * 1000)
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if amount % MILLISECONDS[unit] == 0) if amount else "s"
    return f"{amount // MILLISECONDS[unit]}{unit}"


def parse_share(text: str) -> float:
    """A share of `1%`, `0.1%`, `100%`, from 0 to 1."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", text)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{quote(text)} is not a share; write 0%, 1%, 0.1% or 100%")
    return float(match[1]) / 100


def show_share(share: float) -> str:
    return f"{round(share * 100, 6):g}%"


def parse_size(text: str) -> int:
    """Bytes of `512B 64KiB 1MiB 2GiB`."""
    match = re.fullmatch(r"([0-9]{1,15})(B|KiB|MiB|GiB)", text)
    if match:
        return int(match[1]) * BYTES[match[2]]
    if re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f"a size needs its unit: {text}B, {text}KiB, {text}MiB or {text}GiB")
    loose = re.fullmatch(r"([0-9]{1,15}) ?([kmg])i?b?", text, re.IGNORECASE)
    hint = f"{loose[1]}{loose[2].upper()}iB" if loose else "512B, 64KiB, 1MiB or 2GiB"
    raise ValueError(f"{quote(text)} is not a size; write {hint}")


def show_size(size: int) -> str:
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % BYTES[unit] == 0) if size else "B"
    return f"{size // BYTES[unit]}{unit}"


def parse_address(text: str) -> Address:
    """`host:port`, `[::1]:8080`; port 0 lets the system choose."""
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})", text)
    if match is None:
        hint = "[::1]:8080" if text.count(":") > 1 else "127.0.0.1:8080"
        raise ValueError(f"{quote(text)} is not an address; write host:port, such as {hint}")
    host, port = match[1] if match[1] is not None else match[2], int(match[3])
    if port > 65535:
        raise ValueError(f"port {port} does not exist; the last one is 65535")
    if not host:
        raise ValueError("the host is missing; write 127.0.0.1, or 0.0.0.0 for every interface")
    return check_host(host, bracketed=match[1] is not None), port


def show_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_host(host: str, *, bracketed: bool = False) -> str:
    """A host name or IP address, normalised (lower-case, IPv6 short).

    Raises:
        ValueError: Neither; or an IPv4 address with a typo, which would otherwise be looked up as a name.
    """
    if bracketed or re.fullmatch(r"[0-9.]+", host):
        try:
            found = ip_address(host)
        except ValueError:
            raise ValueError(f"{quote(host)} is not an IP address") from None
        if "%" in host or bracketed != isinstance(found, IPv6Address):
            raise ValueError(f"{quote(host)} is not an IPv6 address without a zone")
        return str(found)
    if HOST.fullmatch(host) is None:
        raise ValueError(f"{quote(host)} is not a host name")
    return host.lower()


def is_loopback(host: str) -> bool:
    """Does this host reach this machine only? A name other than `localhost` is not looked up: it counts as far."""
    try:
        found = ip_address(host)
    except ValueError:
        return host.rstrip(".") == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def parse_network(text: str) -> Network:
    """A CIDR block; a single address is a block of one."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        wide = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quote(text)} is not a network; write 10.0.0.0/8 or fd00::/8") from None
    raise ValueError(f"{quote(text)} has bits set behind its prefix; did you mean '{wide}'?")


def split_url(text: str) -> SplitResult:
    """Check an http or https URL that the operator wrote. What it holds is never quoted: it may carry a token.

    Raises:
        ValueError: Another scheme, no host, a user name or password, a fragment, or characters that must be encoded.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", text) or "\\" in text:
        raise ValueError("a URL has no spaces, backslashes or characters beyond ASCII; percent-encode them")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("this is not a URL; write https://host:port/path") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("a URL begins with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("a URL holds no user name or password; put them into `headers`")
    if "#" in text:
        raise ValueError("a URL to connect to has no fragment ('#…')")
    if not parts.hostname or port == 0:
        raise ValueError("the URL names no host" if port != 0 else "port 0 cannot be connected to")
    check_host(parts.hostname, bracketed=parts.netloc.startswith("["))
    return parts


def parse_url(text: str) -> str:
    split_url(text)
    return text


def parse_base_url(text: str) -> str:
    """A URL that others are appended to: no query; a final slash is dropped."""
    if split_url(text).query or "?" in text:
        raise ValueError("this URL is a beginning that paths are added to: it has no query")
    return text.rstrip("/")


def parse_sink_url(text: str) -> str:
    """The URL of an OTLP receiver, or `syslog+tls://host:port`."""
    if not text.startswith("syslog+tls://"):
        return parse_url(text)
    try:
        parts = split_url("https" + text.removeprefix("syslog+tls"))
    except ValueError as error:
        raise ValueError(f"{error}".replace("https://", "syslog+tls://")) from None
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("write syslog+tls://host:port, and nothing behind it")
    return text.rstrip("/")


def parse_proxy(text: str) -> str:
    """`env`, or the http:// or https:// URL of a proxy."""
    if text == "env":
        return text
    if split_url(text).scheme not in ("http", "https"):
        raise ValueError("a proxy is 'env', or an http:// or https:// URL; SOCKS is not known")
    return text.rstrip("/")


def parse_host_header(text: str) -> str:
    """A value of `Host`: a name or address, with or without a port."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+)(:[0-9]{1,5})?", text)
    if match is None:
        raise ValueError(f"{quote(text)} is not a host; write gateway.example.com or gateway.example.com:8443")
    host = match[1]
    check_host(host.strip("[]"), bracketed=host.startswith("["))
    return text.lower()


def parse_header_name(text: str) -> str:
    if TOKEN.fullmatch(text) is None:
        raise ValueError(f"{quote(text)} is not the name of a header")
    if OWN_HEADERS.fullmatch(text.lower()):
        raise ValueError(f"the header {text} is written by Narthex itself")
    return text


def parse_header_value(text: str) -> str:
    """Never quoted in a message: most headers that are set by hand are secrets."""
    if text != text.strip() or re.fullmatch(r"[\x20-\x7e\t]*", text) is None:
        raise ValueError("a header value is printable ASCII without spaces around it")
    return text


def parse_env_name(text: str) -> str:
    if re.fullmatch(r"[^=\s]+", text) is None:
        raise ValueError(f"{quote(text)} is not the name of an environment variable")
    return text


def parse_name(text: str) -> str:
    """Name of a server or an endpoint: it stands in tool names and URLs."""
    if re.fullmatch(r"[a-z0-9-]{1,24}", text):
        return text
    fixed = re.sub(r"[^a-z0-9-]", "-", text.lower())[:24]
    hint = f"; did you mean '{fixed}'?" if re.search("[a-z0-9]", fixed) else ""
    raise ValueError(f"{quote(text)} is not a name: 1 to 24 of a-z, 0-9 and '-'{hint}")


def parse_secret_name(text: str) -> str:
    """Name of a secret: it stands in `${secret:NAME}`."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is None:
        raise ValueError(f"{quote(text)} is not the name of a secret: 1 to 64 of A-Z, a-z, 0-9 and . _ -")
    return text


def parse_secret_source(text: str) -> SecretSource:
    """Where a secret comes from: `env:VAR`, `file:PATH`, `vault:MOUNT/PATH#FIELD`."""
    kind, colon, where = text.partition(":")
    if kind == "env" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", where):
        return SecretSource("env", where)
    if kind == "file" and where.strip() and "\n" not in where:
        return SecretSource("file", where)
    if kind == "vault":
        path, _, field = where.partition("#")
        steps = path.split("/")
        if len(steps) > 1 and field and all(re.fullmatch(r"(?!\.+\Z)[\w.~ -]+", step, re.ASCII) for step in steps):
            return SecretSource("vault", path, field)
        raise ValueError("a secret of a Vault is vault:MOUNT/PATH#FIELD, such as vault:secret/team/github#token")
    # What was written is not repeated: it may be the secret itself.
    raise ValueError("a secret comes from env:VAR, file:PATH or vault:MOUNT/PATH#FIELD; values never stand here")


def show_secret_source(source: SecretSource) -> str:
    return f"{source.kind}:{source.where}" + (f"#{source.field}" if source.field else "")


def parse_key_id(text: str) -> str:
    """A `kid` as issuers make them: often the base64url of a thumbprint, which may begin with any of its characters."""
    if re.fullmatch(r"[A-Za-z0-9._~:@/+=-]{1,256}", text) is None:
        raise ValueError(f"{quote(text)} is not 1 to 256 of A-Z, a-z, 0-9 and . _ ~ : @ / + = -")
    return text


def parse_word(text: str) -> str:
    """What stands in a path or a header of somebody else's protocol."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", text) is None or "//" in text or ".." in text:
        raise ValueError(f"{quote(text)} is not 1 to 128 of A-Z, a-z, 0-9 and . _ - /")
    return text


def parse_run_label(text: str) -> str:
    """What a run is labelled with."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", text) is None:
        raise ValueError(f"{quote(text)} is not 1 to 64 of A-Z, a-z, 0-9 and . _ : -")
    return text


def parse_glob(text: str) -> str:
    if not text or len(text) > 256 or re.search(r"\s", text):
        raise ValueError("a pattern is 1 to 256 characters without spaces")
    return text


def parse_path(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("a path is missing here")
    return text


def parse_store(text: str) -> str:
    """The path in `sqlite:///PATH`, relative to the configuration file; four slashes begin an absolute one."""
    path = text.removeprefix("sqlite:///")
    if path == text or not path.strip("/.") or re.search(r"[\s?#%]", path):
        raise ValueError("a store is sqlite:/// and a path, such as sqlite:///.narthex/narthex.db, or postgresql://…")
    return path


def parse_text(text: str) -> str:
    return text


def parse_issuer(text: str) -> str:
    """The name of an issuer, as its tokens say it: compared character by character, so nothing is normalised."""
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", text) or re.search(r'["\\<>]', text):
        raise ValueError("an issuer is 1 to 512 characters of ASCII without spaces, exactly as it stands in `iss`")
    return text


def parse_claim_path(text: str) -> tuple[str, ...]:
    """The way to a claim: `realm_access.roles`; `\\.` is a dot of a name, and what holds `://` is one name."""
    if not text or len(text) > 256 or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f"{quote(text)} is not a claim: 1 to 256 characters without spaces")
    if "://" in text:
        return (text,)
    path = tuple(part.replace("\0", ".") for part in text.replace("\\.", "\0").split("."))
    if not all(path):
        raise ValueError(f"{quote(text)} is not a claim: a name is missing beside a dot")
    return path


def show_claim_path(path: tuple[str, ...]) -> str:
    return path[0] if len(path) == 1 and "://" in path[0] else ".".join(name.replace(".", "\\.") for name in path)


def parse_label(text: str) -> str:
    """A role, scope, group, audience: what others made up, in one line."""
    if not text or len(text) > 512 or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{quote(text)} is not 1 to 512 characters in one line")
    return text


def parse_scope(text: str) -> str:
    """A scope of OAuth (RFC 6749 §3.3)."""
    if re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", text) is None:
        raise ValueError(f"{quote(text)} is not a scope: 1 to 256 characters of ASCII without spaces and quotes")
    return text
