"""Where an OpenAI-compatible endpoint stands and how it is called. Light: nothing here opens a connection."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from reasonembed.errors import ConfigError, shown

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY_ENV = "OPENAI_API_KEY"
AZURE_KEY_ENV = "AZURE_OPENAI_API_KEY"  # these three as the official client has them
AZURE_URL_ENV = "AZURE_OPENAI_ENDPOINT"
AZURE_VERSION_ENV = "OPENAI_API_VERSION"
NETWORK_KINDS = ("http://", "https://", "openai:", "azure:")
"""How the specs of endpoints begin."""

_VERSION = re.compile(r"[\w.-]+")
_COMMA = re.compile(r",(?=\s*https?://)")  # a comma inside a path or a model's name is part of it


class ClientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an endpoint is called. None of it decides an answer: all of it is free to change between runs."""

    concurrency: int = 32  # requests in flight, at least 1; our choice: what a small server batches well
    attempts: int = 6  # tries of one request, at least 1; a 429 uses up none
    backoff_s: float = 0.5  # before the second try; doubled for each further one, with jitter
    backoff_limit_s: float = 30.0  # no pause of ours is longer
    patience_s: float = 1800.0  # how long one request may wait on 429s and Retry-After in all
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 600.0  # of silence; a server says nothing until the whole text is written
    total_timeout_s: float = 1800.0  # of one try
    requests_per_minute: float = 0.0  # over all servers together, retries included; 0: no cap
    tokens_per_minute: float = 0.0  # of prompts and answers, estimated before and corrected after; 0: no cap
    check_model: bool = True  # refuse an answer from another model than was asked (a gateway's substitute)
    api_key_env: str = ""  # name of the environment variable that holds the key; empty: none is sent
    durable: bool = False  # wait for the disk at each commit of the journal (survives a power cut)

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 1.")
        for name in ("backoff_s", "connect_timeout_s", "read_timeout_s", "total_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be above 0.")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 0 (no cap).")
        if not self.backoff_limit_s >= self.backoff_s:
            raise ValueError(f"backoff_limit_s is {self.backoff_limit_s!r}; it must be at least backoff_s.")
        if not self.patience_s >= 0:
            raise ValueError(f"patience_s is {self.patience_s!r}; it must be at least 0.")
        if self.api_key_env and not self.api_key_env.isidentifier():
            raise ValueError(
                "api_key_env is not the name of an environment variable. "
                "It takes the variable's name, never the key itself."
            )

    def backoff_after(self, tries: int) -> float:
        """Seconds to wait after so many tries, before any jitter: doubled each time, up to the limit."""
        return min(self.backoff_limit_s, self.backoff_s * 2 ** min(tries - 1, 20))


class Endpoint(msgspec.Struct, frozen=True):
    """A base URL without a trailing slash, and the model to ask there (empty: the only one that it lists)."""

    url: str
    model: str
    default_key_env: str = ""
    token_limit_field: str = "max_tokens"
    api_version: str = ""  # sent with each request where given
    key_header: str = ""  # that carries the key; empty: Authorization, as a bearer token
    renames_model: bool = False  # `model` is a deployment: answers name the model behind it

    @property
    def chat_url(self) -> str:
        """Where chat completions are asked for."""
        return self.address("chat/completions")

    @property
    def models_url(self) -> str:
        """Where the server lists its models."""
        return self.address("models")

    def address(self, path: str) -> str:
        """The URL of `path` under the base URL."""
        version = f"?api-version={self.api_version}" if self.api_version else ""
        return f"{self.url}/{path}{version}"

    def headers(self, key: str) -> dict[str, str]:
        """The header that carries `key`, if there is one."""
        if not key:
            return {}
        return {self.key_header: key} if self.key_header else {"Authorization": f"Bearer {key}"}

    @property
    def exposes_keys(self) -> bool:
        """Whether a key would travel unencrypted to another machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def parse_endpoint(spec: str, *, model: str | None = None) -> Endpoint:
    """The endpoint that `http(s)://HOST[:PORT]/PATH[#MODEL]`, `openai:MODEL` or `azure:DEPLOYMENT` names.

    An Azure resource and the version of its interface come from the environment variables of the official client.

    Raises ConfigError for what is no such URL, for two different models, and for a URL that carries a secret
    (which the message does not repeat).
    """
    if spec.startswith("openai:"):
        named = _one_model(spec.removeprefix("openai:"), model)
        if not named:
            raise ConfigError("`openai:` names no model. Write openai:MODEL, for example openai:gpt-4.1-mini.")
        return Endpoint(OPENAI_URL, named, default_key_env=OPENAI_KEY_ENV, token_limit_field="max_completion_tokens")
    if spec.startswith("azure:"):
        return _azure(_one_model(spec.removeprefix("azure:"), model))
    parts = _split(spec)
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", _one_model(unquote(parts.fragment), model))


def _azure(deployment: str) -> Endpoint:
    if not deployment:
        raise ConfigError("`azure:` names no deployment. Write azure:DEPLOYMENT, as you called it in the Azure portal.")
    resource, version = (os.environ.get(name, "").strip() for name in (AZURE_URL_ENV, AZURE_VERSION_ENV))
    if not resource:
        raise ConfigError(
            f"the environment variable {AZURE_URL_ENV} is not set. Put https://NAME.openai.azure.com there."
        )
    if not _VERSION.fullmatch(version):
        raise ConfigError(
            f"the environment variable {AZURE_VERSION_ENV} holds no version of Azure's interface ({shown(version)}). "
            f"Put one there that the deployment supports, such as 2024-10-21."
        )
    base = parse_endpoint(resource).url
    return Endpoint(
        f"{base}/openai/deployments/{quote(deployment, safe='')}",
        deployment,
        default_key_env=AZURE_KEY_ENV,
        token_limit_field="max_completion_tokens",
        api_version=version,
        key_header="api-key",
        renames_model=True,
    )


def parse_endpoints(spec: str, *, model: str | None = None) -> tuple[Endpoint, ...]:
    """The servers of one model: `URL,URL,...[#MODEL]`, or what `parse_endpoint` takes; each server once.

    The model may stand after any of the URLs and holds for all. Raises ConfigError as `parse_endpoint` does.
    """
    endpoints = [parse_endpoint(part.strip(), model=model) for part in _COMMA.split(spec)]
    for endpoint in endpoints:
        model = _one_model(endpoint.model, model)
    return tuple(dict.fromkeys(msgspec.structs.replace(endpoint, model=model or "") for endpoint in endpoints))


def _split(spec: str) -> SplitResult:
    if "@" in spec.partition("#")[0] or "?" in spec.partition("#")[0]:
        raise ConfigError(
            "the endpoint's URL carries a user name, a password or a query string. Leave them out; put the "
            "key into an environment variable and name that variable as api_key_env."
        )
    try:
        parts = urlsplit(spec)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not spec.isprintable() or " " in spec:
        raise ConfigError(f"{shown(spec)} is no URL of an endpoint. Write it like http://localhost:8000/v1.")
    return parts


def _one_model(in_spec: str, argument: str | None) -> str:
    if in_spec and argument and in_spec != argument:
        raise ConfigError(f"two models are named: {shown(in_spec)} in the endpoint and {shown(argument)}. Keep one.")
    return argument or in_spec


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(name: str) -> str:
    """The API key in the environment variable `name`. Raises ConfigError, never showing the value."""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {name} is not set. Put the endpoint's key there: export {name}=..."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"the environment variable {name} holds no key: it has spaces, line breaks or odd characters."
        )
    return key


__all__ = ["NETWORK_KINDS", "ClientConfig", "Endpoint", "parse_endpoint", "parse_endpoints", "read_key"]
