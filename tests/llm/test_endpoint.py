"""Endpoints by one string, and how they are called."""

from __future__ import annotations

import pytest

from reasonembed.config import build
from reasonembed.errors import ConfigError
from reasonembed.llm.endpoint import ClientConfig, Endpoint, parse_endpoint, read_key


@pytest.mark.parametrize(
    ("spec", "url", "model"),
    [
        ("http://h:8000/v1", "http://h:8000/v1", ""),
        ("http://h:8000/v1/", "http://h:8000/v1", ""),
        ("http://h:8000/v1#Qwen/Qwen3-8B", "http://h:8000/v1", "Qwen/Qwen3-8B"),
        ("https://h/api/v1/chat/completions", "https://h/api/v1", ""),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", ""),
    ],
)
def test_a_url_names_the_base_and_optionally_the_model(spec: str, url: str, model: str) -> None:
    assert parse_endpoint(spec) == Endpoint(url, model)


def test_openai_has_a_known_address_and_key_variable() -> None:
    endpoint = parse_endpoint("openai:gpt-4.1-mini")
    assert endpoint.chat_url == "https://api.openai.com/v1/chat/completions"
    assert (endpoint.model, endpoint.default_key_env) == ("gpt-4.1-mini", "OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("spec", "resource", "version", "said"),
    [
        ("azure:", "https://x.openai.azure.com", "2024-10-21", "Write azure:DEPLOYMENT"),
        ("azure:d", "", "2024-10-21", "AZURE_OPENAI_ENDPOINT is not set"),
        ("azure:d", "https://x.openai.azure.com", "", "OPENAI_API_VERSION holds no version"),
        ("azure:d", "https://x.openai.azure.com", "1&key=a", "OPENAI_API_VERSION holds no version"),
        ("azure:d", "x.openai.azure.com", "2024-10-21", "is no URL"),
    ],
)
def test_what_azure_lacks_is_named(
    spec: str, resource: str, version: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", resource)
    monkeypatch.setenv("OPENAI_API_VERSION", version)
    with pytest.raises(ConfigError, match=said):
        parse_endpoint(spec)


def test_a_deployment_is_data_and_cannot_leave_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    assert parse_endpoint("azure:../a?b").url == "https://x.openai.azure.com/openai/deployments/..%2Fa%3Fb"


@pytest.mark.parametrize(
    "spec", ["http://", "http:///v1", "http://h:port/v1", "ftp://h/v1", "http://a b/v1", "openai:"]
)
def test_what_is_no_endpoint_is_refused_with_an_example(spec: str) -> None:
    with pytest.raises(ConfigError, match="Write"):
        parse_endpoint(spec)


def test_two_different_models_are_refused() -> None:
    assert parse_endpoint("http://h/v1#a", model="a").model == "a"
    with pytest.raises(ConfigError, match="two models"):
        parse_endpoint("http://h/v1#a", model="b")


@pytest.mark.parametrize("spec", ["http://user:hunter2@h/v1", "http://h/v1?api_key=hunter2"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(ConfigError, match="environment variable") as caught:
        parse_endpoint(spec)
    assert "hunter2" not in str(caught.value)


def test_only_a_key_over_plain_http_to_elsewhere_is_exposed() -> None:
    assert parse_endpoint("http://example.org/v1").exposes_keys
    for safe in (
        "https://example.org/v1",
        "http://localhost:1/v1",
        "http://127.0.0.1:1/v1",
        "http://[::1]/v1",
    ):
        assert not parse_endpoint(safe).exposes_keys


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="export MY_KEY"):
        read_key("MY_KEY")


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "schlüssel"])
def test_an_unusable_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        read_key("MY_KEY")
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": 0},
        {"attempts": 0},
        {"backoff_s": 0},
        {"backoff_s": 50},
        {"read_timeout_s": float("nan")},
        {"patience_s": -1},
        {"api_key_env": "sk-not-a-name"},
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values)).replace("backoff_s", "backoff")) as caught:
        build(ClientConfig, values, where="[client]")
    assert "sk-not" not in str(caught.value)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "concurrency"'):
        build(ClientConfig, {"concurency": 3}, where="[client]")
