"""Settings to a `Snapshot`: checks across keys, paths made absolute, defaults that depend on others, the revision.

In: `Loaded` settings, overrides from the command line. Out: a `Snapshot`, or every problem at once.
The disk is asked whether named files are there; nothing is started, no name is looked up.
Cases: `tests/config/test_compile.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import msgspec

from narthex.authority.addresses import Allowed
from narthex.config import values
from narthex.config.cache import compile_cache
from narthex.config.client import workspace_of
from narthex.config.credentials import compile_credentials, compile_table
from narthex.config.data import check_asked, check_environment, compile_data
from narthex.config.decision_logs import compile_decision_logs
from narthex.config.document import Path as KeyPath
from narthex.config.document import Problem, Reading, in_order, suggest
from narthex.config.expand import Expanded
from narthex.config.exports import compile_exports
from narthex.config.grants import compile_approvals, compile_grants
from narthex.config.identity import IdentityCompiler
from narthex.config.kept import compile_kept
from narthex.config.limits import compile_hooks, compile_limits, compile_teams, counted_claims
from narthex.config.load import Loaded, load
from narthex.config.places import places_of
from narthex.config.policy import compile_policy
from narthex.config.prices import compile_models, compile_prices, compile_tokens
from narthex.config.runs import check_conditions, compile_runs
from narthex.config.schema.audit import EndpointAuditSettings
from narthex.config.schema.endpoints import EndpointSettings, SelectionSettings
from narthex.config.schema.grants import GrantSettings, PatternSettings
from narthex.config.schema.listeners import TlsSettings
from narthex.config.schema.root import Settings
from narthex.config.schema.servers import ServerSettings
from narthex.config.secrets import compile_secrets
from narthex.config.shared import compile_shared
from narthex.config.telemetry import compile_telemetry
from narthex.errors import ConfigError
from narthex.flow.policy.admin import admin_grants, is_for_calls
from narthex.types import (
    Address,
    CostsKept,
    Credential,
    Egress,
    EndpointSpec,
    HttpTarget,
    Limits,
    Selection,
    ServerSpec,
    Snapshot,
    StdioTarget,
    TlsFiles,
)

STDIO_ONLY = ("args", "env", "cwd", "start", "idle_timeout")
HTTP_ONLY = ("headers", "transport")


class Overrides(msgspec.Struct, frozen=True):
    """What the command line says instead of the file: addresses as written."""

    listen: str | None = None
    admin_listen: str | None = None


class Examined(msgspec.Struct, frozen=True):
    """What became of a file: a snapshot, or problems; and in both cases what is worth knowing."""

    snapshot: Snapshot | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    notices: tuple[Problem, ...]


def load_snapshot(
    path: Path, *, listen: str | None = None, admin_listen: str | None = None, env: Mapping[str, str] | None = None
) -> Snapshot:
    """Read and compile a configuration file.

    Args:
        path: `narthex.yaml` or a client's `mcp.json`.
        listen, admin_listen: `host:port` from the command line, instead of the file's.
        env: Environment for `${VAR}` and the data directory; the process's own by default.
    Raises:
        ConfigError: The file cannot be used; `problems` has a line for each fault.
    """
    examined = examine(path, Overrides(listen, admin_listen), env=env)
    if examined.snapshot is None:
        raise ConfigError([str(problem) for problem in examined.problems])
    return examined.snapshot


def examine(path: Path, overrides: Overrides | None = None, *, env: Mapping[str, str] | None = None) -> Examined:
    """As `load_snapshot`, with places, warnings and notices kept apart and nothing raised."""
    environment = os.environ if env is None else env
    loaded = load(path, env=environment)
    snapshot = _Compiler(loaded, environment).snapshot(overrides or Overrides())
    reading = loaded.reading
    problems, warnings, notices = (in_order(found) for found in (reading.problems, reading.warnings, reading.notices))
    if problems:
        return Examined(None, problems, warnings, notices)
    said = {"warnings": tuple(map(str, warnings)), "notices": tuple(map(str, notices))}
    return Examined(msgspec.structs.replace(snapshot, **said), (), warnings, notices)


def endpoint_url(snapshot: Snapshot, endpoint: str, *, listening: Address | None = None) -> str:
    """Where a client reaches an endpoint.

    Args:
        snapshot: The configuration.
        endpoint: A name in it; `default` is shown as `/mcp`.
        listening: The address really bound, where the configuration says port 0.
    """
    path = "/mcp" if endpoint == "default" else f"/mcp/{endpoint}"
    if snapshot.public_url:
        return snapshot.public_url + path
    host, port = listening or snapshot.listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{'https' if snapshot.tls else 'http'}://{values.show_address((host, port))}{path}"


def revision_of(settings: Settings) -> str:
    """Hex SHA-256 over the settings as they were meant: formatting, comments and key order do not count, values of
    variables do not either (a revision is published, a value may be a secret)."""

    def plain(value: Any) -> Any:
        return value.written if isinstance(value, Expanded) else str(value)

    order = list(settings.servers)  # the order of servers is the order of lists, but sorting the keys would lose it
    canonical = msgspec.json.encode([order, msgspec.to_builtins(settings, enc_hook=plain)], order="sorted")
    return hashlib.sha256(canonical).hexdigest()


class _Compiler:
    def __init__(self, loaded: Loaded, env: Mapping[str, str]) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self.reading: Reading = loaded.reading
        self.client = loaded.client
        self.env = env
        self.written: defaultdict[KeyPath, set[str]] = defaultdict(set)
        for path in self.reading.marks:
            self.written[path[:-1]].add(path[-1])
        self.path = loaded.path.absolute()
        self.base = workspace_of(loaded.path) if loaded.client else self.path.parent

    def snapshot(self, overrides: Overrides) -> Snapshot:
        settings = self.settings
        listen = self._address(("listen",), settings.listen, "--listen", overrides.listen)
        admin = self._address(("admin", "listen"), settings.admin.listen, "--admin-listen", overrides.admin_listen)
        if listen == admin and listen[1] != 0:
            self.reading.fault(("admin", "listen"), f"listen and admin.listen are both {values.show_address(listen)}")
        credentials = compile_credentials(
            settings.credentials, settings.identity.issuers if settings.identity is not None else {}, self.reading
        )
        servers = {name: self._server(name, server, credentials) for name, server in settings.servers.items()}
        for name, server in servers.items():
            if isinstance(server.target, HttpTarget) and _is_ours(server.target, listen, settings.public_url):
                self.reading.fault(("servers", name, "url"), f"'{name}' is this gateway itself: a call would go round")
        egress = self._egress()
        allowed = Allowed(egress.allow_private, egress.allow_http)
        claims = counted_claims(settings.limits)
        identity = IdentityCompiler(self.reading, allowed, self._file, claims).compile(settings.identity)
        endpoints = self._endpoints()
        self._remarks(endpoints)
        places = places_of(self.loaded, self.env)
        approvals = compile_approvals(settings.approvals, self.reading)
        secrets = compile_secrets(settings, self.reading, self.env, self._resolve)
        grants = compile_grants(settings.grants, servers, endpoints, approvals.terms, self.reading)
        data = compile_data(settings.servers, settings.data, self.reading)
        runs = compile_runs(settings.runs, servers, grants, self.reading)
        check_conditions(grants, runs, self.reading)
        for_calls = tuple(one for one in grants if is_for_calls(one))
        check_asked((*grants, *(runs.labels if runs is not None else ())), data, self.reading)
        check_environment(grants, settings.environment or "", self.reading)
        quotas = compile_limits(settings.limits, servers, endpoints, self.reading)
        return Snapshot(
            revision=revision_of(settings),
            source=str(self.path),
            state_dir=str(places.state_dir),
            store=str(places.store) if isinstance(places.store, Path) else places.store,
            shared=compile_shared(settings.shared, self.reading, self._resolve),
            secrets=secrets.sources,
            secret_names=secrets.names,
            vault=secrets.vault,
            audit_dir=self._audit_dir(),
            audit_checkpoints=self._audit_checkpoints(),
            **self._audit_rules(),
            **compile_kept(settings.audit, servers, endpoints, self.reading),
            audit_inputs=self.settings.audit.inputs if self.settings.audit is not None else "none",
            listen=listen,
            admin_listen=admin,
            tls=self._tls(settings.tls, ("tls",)),
            admin_tls=self._tls(settings.admin.tls, ("admin", "tls")),
            public_url=settings.public_url,
            allowed_hosts=settings.allowed_hosts,
            trusted_proxies=settings.trusted_proxies,
            egress=egress,
            identity=identity,
            limits=self._limits(),
            log_calls=settings.log.calls,
            log_format=settings.log.format,
            servers=servers,
            endpoints=endpoints,
            grants=tuple(one for one in for_calls if not one.shadow),
            trial=for_calls if any(one.shadow for one in for_calls) else (),
            admin_grants=admin_grants(grants),
            environment=settings.environment or "",
            data=data,
            runs=runs,
            policy_admin=settings.policy is not None and settings.policy.admin,
            policy_shadow=settings.policy is not None and settings.policy.mode == "shadow",
            policy=compile_policy(settings.policy, allowed, self.reading, self._resolve, places.state_dir),
            decision_log=compile_decision_logs(settings.policy, allowed, self.reading, self._resolve),
            audit_exports=compile_exports(settings.audit, allowed, self.reading, self._resolve),
            quotas=quotas,
            alert_hooks=compile_hooks(settings.limits, self.reading),
            teams=compile_teams(settings.teams, settings.limits, self.reading),
            telemetry=compile_telemetry(settings.telemetry, allowed, self.reading),
            prices=compile_prices(settings.prices, servers, quotas, self.reading),
            models=compile_models(settings.models, settings.prices, self.reading),
            tokens=compile_tokens(settings.tokens, self.reading),
            costs=CostsKept(int(settings.costs.hours) // 3600, int(settings.costs.days) // 86_400),
            approvals=approvals,
            cache=compile_cache(settings.cache, servers, endpoints, self.reading),
        )

    # -- addresses and files -------------------------------------------------------------------------------------

    def _address(self, path: KeyPath, address: Address, option: str, override: str | None) -> Address:
        """Without an identity anybody who reaches the listener may call: only this machine may reach it (design §6).

        With issuers, clients must be told the URL that tokens are for: another machine's `Host` may not decide it.
        """
        try:
            address = values.parse_address(override) if override is not None else address
        except ValueError as error:
            self.reading.problems.append(Problem(option, None, str(error)))
            return address
        identity = self.settings.identity
        if not values.is_loopback(address[0]) and (
            identity is None or (path == ("listen",) and identity.issuers and not self.settings.public_url)
        ):
            text = f"{values.show_address(address)} can be reached from other machines; " + (
                "without a configured identity Narthex binds loopback only (127.0.0.1, [::1] or localhost)"
                if identity is None
                else "with issuers of tokens `public_url` must say which URL clients use"
            )
            if override is not None:
                self.reading.problems.append(Problem(option, None, text))
            else:
                self.reading.fault(path, f"{'.'.join(path)}: {text}")
        return address

    def _file(self, text: str, path: KeyPath) -> str:
        found = self._resolve(text)
        if not found.is_file():
            self.reading.fault(path, f"{path[-1]}: no file {str(found)!r}")
        elif not os.access(found, os.R_OK):
            self.reading.fault(path, f"{path[-1]}: {str(found)!r} cannot be read by this user")
        return str(found)

    def _resolve(self, text: str) -> Path:
        home = self.env.get("HOME")
        if home and (text == "~" or text.startswith("~/")):
            text = home + text[1:]
        return Path(os.path.normpath(self.base / text))

    def _tls(self, tls: TlsSettings | None, path: KeyPath) -> TlsFiles | None:
        if tls is None:
            return None
        for key in ("cert", "key"):
            if (*path, key) not in self.reading.marks:
                self.reading.fault(path, f"{'.'.join(path)}: '{key}' is missing")
        if tls.cert is None or tls.key is None:
            return None
        files = {
            key: self._file(text, (*path, key)) for key in ("cert", "key", "client_ca") if (text := getattr(tls, key))
        }
        if tls.client_auth == "optional" and tls.client_ca is None:
            self.reading.fault((*path, "client_auth"), "client_auth: goes with `client_ca`")
        optional = tls.client_auth == "optional"
        ca_digest = _digest([files["client_ca"]]) if "client_ca" in files else ""
        return TlsFiles(**files, client_optional=optional, digest=_digest(files.values()), ca_digest=ca_digest)

    def _egress(self) -> Egress:
        egress = self.settings.egress
        ca = egress.ca if egress.ca == "system" else self._file(egress.ca, ("egress", "ca"))
        return Egress(
            proxy=egress.proxy,
            no_proxy=egress.no_proxy,
            ca=ca,
            allow_private=egress.allow_private,
            allow_http=egress.allow_http,
        )

    def _audit_dir(self) -> str:
        audit = self.settings.audit
        if audit is not None and audit.dir is None and ("audit", "dir") not in self.reading.marks:
            self.reading.fault(("audit",), "audit: 'dir' is missing: where do the records go?")
        return str(self._resolve(audit.dir)) if audit is not None and audit.dir is not None else ""

    def _audit_rules(self) -> dict[str, Any]:
        audit = self.settings.audit
        if audit is None:
            return {}
        own = [one.audit.durable for one in (self.settings.endpoints or {}).values()]
        if audit.reads and "writes" not in (audit.durable, *own):
            self.reading.warn(("audit", "reads"), f"audit.reads says nothing with durable: {audit.durable}")
        return {
            "audit_durable": audit.durable,
            "audit_blocks": audit.on_failure == "block",
            "audit_reads": audit.reads,
            "audit_wait_s": audit.wait,
            "audit_index": audit.index,
        }

    def _audit_checkpoints(self) -> str:
        audit = self.settings.audit
        if audit is None or audit.checkpoints is None:
            return ""
        second = str(self._resolve(audit.checkpoints))
        if audit.dir is not None and second == str(self._resolve(audit.dir)):
            self.reading.fault(
                ("audit", "checkpoints"), "audit.checkpoints is audit.dir: a second place is another one"
            )
        return second

    def _limits(self) -> Limits:
        bounds = msgspec.structs.asdict(self.settings.bounds)
        return Limits(**{name: bounds[name.removesuffix("_s")] for name in Limits.__struct_fields__})

    # -- servers ---------------------------------------------------------------------------------------------------

    def _server(self, name: str, server: ServerSettings, credentials: Mapping[str, Credential]) -> ServerSpec:
        here: KeyPath = ("servers", name)
        written = self.written[here]
        misspelt = written - set(server.__struct_fields__)
        if not {"command", "url"} & written and not misspelt:
            self.reading.fault(here, f"server '{name}' needs `command` (stdio) or `url` (HTTP)")
        if {"command", "url"} <= written:
            self.reading.fault((*here, "url"), f"server '{name}' has both `command` and `url`; keep one")
        stdio = "command" in written
        for key in HTTP_ONLY if stdio else STDIO_ONLY if "url" in written else ():
            if key in written:
                self.reading.fault(
                    (*here, key),
                    f"{key}: goes with `{'url' if stdio else 'command'}`, not with `{'command' if stdio else 'url'}`",
                )
        told_apart = len(server.credential) > 1
        spec = ServerSpec(
            name=name,
            target=self._stdio(here, server) if stdio else self._http(here, server),
            transport="stdio" if stdio else server.transport,
            era=server.era,
            sharing=server.sharing or ("tenant" if stdio and not told_apart else "principal"),
            connect_timeout_s=server.connect_timeout,
            call_timeout_s=server.call_timeout,
            list_timeout_s=server.list_timeout,
            list_ttl_s=server.list_ttl,
            era_modern_ttl_s=server.era_modern_ttl,
            era_legacy_ttl_s=server.era_legacy_ttl,
            max_answer=server.max_answer,
            max_in_flight=server.max_in_flight,
            idempotent=server.idempotent,
            trusts_annotations=server.annotations == "trusted",
        )
        table = compile_table(server.credential, spec, credentials, self.settings.credentials, self.reading)
        return msgspec.structs.replace(spec, accounts=table)

    def _stdio(self, here: KeyPath, server: ServerSettings) -> StdioTarget:
        command = server.command.value if server.command else ""
        cwd = self._resolve(server.cwd.value) if server.cwd else self.base
        if command.startswith("~") or "/" in command:
            command = str(self._resolve(command))
        env = {key: expanded.value for key, expanded in server.env.items()}
        if command and shutil.which(command, path=env.get("PATH", self.env.get("PATH"))) is None:
            self.reading.warn((*here, "command"), f"command '{command}' is not a program on this machine")
        if server.cwd and not cwd.is_dir():
            self.reading.warn((*here, "cwd"), f"cwd '{cwd}' is not a directory")
        return StdioTarget(
            command=command,
            args=tuple(argument.value for argument in server.args),
            env=tuple(env.items()),
            cwd=str(cwd),
            start=server.start,
            idle_timeout_s=server.idle_timeout,
        )

    def _http(self, here: KeyPath, server: ServerSettings) -> HttpTarget:
        url = server.url.value if server.url else "http://unknown.invalid/"
        parts = values.split_url(url)
        host = values.check_host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
        seen: set[str] = set()
        for name in server.headers:
            if name.lower() in seen:
                self.reading.fault((*here, "headers", name), f"header '{name}' stands twice, in different spelling")
            seen.add(name.lower())
        if parts.scheme == "http" and server.headers and not values.is_loopback(host):
            self.reading.warn((*here, "url"), f"the headers of '{here[-1]}' travel unencrypted: its URL is http")
        return HttpTarget(
            url=url,
            scheme="https" if parts.scheme == "https" else "http",
            host=host,
            port=parts.port or (443 if parts.scheme == "https" else 80),
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            headers=tuple((name, expanded.value) for name, expanded in server.headers.items()),
        )

    # -- endpoints -------------------------------------------------------------------------------------------------

    def _endpoints(self) -> dict[str, EndpointSpec]:
        endpoints = self.settings.endpoints
        if endpoints is None:
            return {"default": EndpointSpec("default", tuple(self.settings.servers))}
        return {name: self._endpoint(name, endpoint) for name, endpoint in endpoints.items()}

    def _endpoint(self, name: str, endpoint: EndpointSettings) -> EndpointSpec:
        here: KeyPath = ("endpoints", name)
        servers = tuple(self.settings.servers) if endpoint.servers is None else endpoint.servers
        self._members(here, endpoint)
        if self.settings.audit is None and endpoint.audit != EndpointAuditSettings():
            self.reading.fault((*here, "audit"), f"endpoint '{name}': nothing is recorded: there is no `audit`")
        return EndpointSpec(
            name=name,
            servers=servers,
            naming=endpoint.naming,
            max_name=endpoint.max_name,
            tools=self._selection((*here, "tools"), endpoint.tools, servers),
            prompts=self._selection((*here, "prompts"), endpoint.prompts, servers),
            resources=self._selection((*here, "resources"), endpoint.resources, servers),
            resource_uris=endpoint.resources.uris,
            headers=endpoint.headers,
            auth=endpoint.auth,
            base_scopes=endpoint.base_scopes,
            scopes=self._scopes((*here, "scopes"), endpoint.scopes, servers),
            hide_unscoped=endpoint.hide_unscoped,
            project=endpoint.project or "",
            durable=endpoint.audit.durable,
            blocks=endpoint.audit.on_failure == "block" if endpoint.audit.on_failure is not None else None,
        )

    def _members(self, here: KeyPath, endpoint: EndpointSettings) -> None:
        """Every server of an endpoint is one of the file, once."""
        at: KeyPath = (*here, "servers")
        marks = [self.reading.mark((*at, str(number))) for number in range(len(endpoint.servers or ()))]
        seen: set[str] = set()
        for name, mark in zip(endpoint.servers or (), marks, strict=True):
            if ("servers", name) not in self.reading.marks:
                self.reading.fault(
                    mark, f"endpoint '{here[-1]}': no server '{name}'{suggest(name, self.settings.servers)}"
                )
            elif name in seen:
                self.reading.fault(mark, f"endpoint '{here[-1]}': server '{name}' stands twice")
            seen.add(name)
        if endpoint.servers == () and (*at, "0") not in self.reading.marks:
            self.reading.fault(at, f"endpoint '{here[-1]}' names no server")

    def _scopes(
        self, here: KeyPath, scopes: Mapping[str, tuple[str, ...]], servers: tuple[str, ...]
    ) -> tuple[tuple[str, tuple[str, ...]], ...]:
        for pattern in scopes:
            if not any(_may_match(pattern, server) for server in servers):
                self.reading.warn((*here, pattern), f"'{pattern}' matches nothing: patterns are on `<server>__<name>`")
        return tuple(scopes.items())

    def _selection(self, here: KeyPath, selection: SelectionSettings, servers: tuple[str, ...]) -> Selection:
        for key in ("include", "exclude"):
            for number, pattern in enumerate(getattr(selection, key)):
                if not any(_may_match(pattern, server) for server in servers):
                    text = (
                        f"'{pattern}' matches nothing: patterns are on `<server>__<name>`, of a server of this endpoint"
                    )
                    self.reading.warn((*here, key, str(number)), text)
        return Selection(include=selection.include, exclude=selection.exclude)

    # -- what is worth saying ----------------------------------------------------------------------------------------

    def _remarks(self, endpoints: Mapping[str, EndpointSpec]) -> None:
        reading = self.reading
        if reading.problems:
            return
        modes = {one.mode for one in self.settings.grants if _speaks_of_calls(one)}
        policy = self.settings.policy
        if "enforce" not in modes and (policy is None or policy.mode == "shadow"):
            why = "all grants are in shadow mode" if modes else "no grants"
            if policy is not None:
                why = f"{why}, and the policy is in shadow mode" if not modes else "all rules are in shadow mode"
            reading.warnings.append(Problem(reading.file, None, f"{why}: every caller may call everything"))
        now = time.time()
        for number, one in enumerate(self.settings.grants):
            if one.expires and one.expires <= now:
                reading.warn(("grants", str(number), "expires"), f"grant '{one.name}' has expired: it counts no more")
        if self.settings.audit is None:
            for number, one in enumerate(self.settings.grants):
                if one.mode == "shadow":
                    text = f"grant '{one.name}' is in shadow mode, and nothing is recorded: nobody will see it"
                    reading.warn(("grants", str(number), "mode"), text)
            for number, rule in enumerate(self.settings.runs.rules if self.settings.runs is not None else ()):
                if rule.mode == "shadow":
                    text = f"rule '{rule.name}' is in shadow mode, and nothing is recorded: nobody will see it"
                    reading.warn(("runs", "rules", str(number), "mode"), text)
            if policy is not None and policy.mode == "shadow" and policy.decision_logs is None:
                text = "the policy is in shadow mode, and nothing is recorded: nobody will see what it says"
                reading.warn(("policy", "mode"), text)
        if not self.settings.servers:
            reading.warn(("servers",), "no servers: clients will find nothing to call")
        if "default" not in endpoints:
            reading.warn(("endpoints",), "no endpoint 'default': /mcp answers 404, clients need /mcp/<endpoint>")
        shown = {row.use for server in self.settings.servers.values() for row in server.credential}
        for name in self.settings.credentials:
            if name not in shown:
                reading.warn(("credentials", name), f"credential '{name}' is shown to no server")
        used = {name for endpoint in endpoints.values() for name in endpoint.servers}
        for name in self.settings.servers:
            if name not in used:
                reading.warn(("servers", name), f"server '{name}' is in no endpoint")
        for number, network in enumerate(self.settings.trusted_proxies):
            if network in (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")):
                reading.warn(("trusted_proxies", str(number)), f"{network} trusts the headers of everybody")


def _speaks_of_calls(grant: GrantSettings) -> bool:
    """Or of the admin side alone."""
    patterns = grant.allow or grant.deny or PatternSettings()
    return not patterns.admin or bool(patterns.tools or patterns.prompts or patterns.resources)


def _is_ours(target: HttpTarget, listen: Address, public_url: str | None) -> bool:
    """Does a server's URL lead back to our own listener?"""
    if public_url is not None and target.url.startswith(f"{public_url}/mcp"):
        return True
    same_host = target.host == listen[0] or (values.is_loopback(target.host) and values.is_loopback(listen[0]))
    return listen[1] != 0 and target.port == listen[1] and same_host


def _may_match(pattern: str, server: str) -> bool:
    """Could this glob match a name of this server? Compares what stands before its first wildcard."""
    literal = pattern[: next((at for at, char in enumerate(pattern) if char in "*?["), len(pattern))]
    prefix = f"{server}__"
    return (
        prefix.startswith(literal) if literal != pattern and len(literal) < len(prefix) else literal.startswith(prefix)
    )


def _digest(files: Any) -> str:
    """SHA-256 over the bytes of files: a renewed certificate makes another snapshot. Faults are told elsewhere."""
    digest = hashlib.sha256()
    for name in files:
        try:
            digest.update(Path(name).read_bytes())
        except OSError:
            continue
    return digest.hexdigest()
