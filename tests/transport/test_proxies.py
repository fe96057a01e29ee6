import httpx
import pytest

from kuber import extras
from kuber.client.registry import HttpRegistry
from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.transport.proxies import proxy_for
from tests.fixtures.commands import called

HUB = httpx.URL("http://hub.example:5001")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("text", ["http://proxy.example:3128", "proxy.example:3128"])
def test_a_variable_names_the_proxy(environment, name, text):
    environment(**{name: text})
    proxy = proxy_for(HUB)
    assert (proxy.url, proxy.source) == ("http://proxy.example:3128", f"The variable {name}")


def test_the_variable_of_the_scheme_counts_before_that_for_all(environment):
    environment(HTTPS_PROXY="http://secure", ALL_PROXY="http://other", all_proxy="http://lower")
    assert proxy_for(httpx.URL("https://hub.example")).url == "http://secure"
    assert proxy_for(HUB).url == "http://lower"


def test_no_variable_names_no_proxy(environment):
    environment(HTTPS_PROXY="http://secure", FTP_PROXY="ftp://proxy", HTTP_PROXY=" ")
    assert proxy_for(HUB) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "localhost", "[::1]"])
def test_addresses_of_this_machine_have_no_proxy(environment, host):
    environment(ALL_PROXY="socks://127.0.0.1:7891")
    assert proxy_for(httpx.URL(f"http://{host}:5001")) is None
    HttpRegistry(f"http://{host}:5001").close()


WRONG = [
    "socks://127.0.0.1:7891",
    "socks4://127.0.0.1:7891",
    "ftp://proxy:1",
    "http://proxy:port",
    "proxy:99999",
    "http://",
    "http://a:b:c",
    "http://me:secret@",
    "http://[::1",
    "http://a..b:3128",
    "http://pro xy:3128",
    f"http://{'a' * 64}:3128",
    "\x01",
]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(environment, name, text):
    environment(**{name: text})
    with pytest.raises(
        SettingsError, match=rf"^The variable {name} names the proxy .*, which cannot be used"
    ) as caught:
        HttpRegistry(str(HUB))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_without_its_extra_is_one_sentence(environment, hide, scheme):
    hide("socksio")
    environment(ALL_PROXY=f"{scheme}://127.0.0.1:7891")
    with pytest.raises(SettingsError) as caught:
        HttpRegistry(str(HUB))
    assert caught.value.message == (
        "The SOCKS proxy of the variable ALL_PROXY needs socksio, not installed: pip install 'kuber[socks]'."
    )


def test_a_socks_proxy_with_its_extra_is_used(environment, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: name)
    environment(ALL_PROXY="socks5://127.0.0.1:7891")
    assert proxy_for(HUB).url == "socks5://127.0.0.1:7891"


@pytest.mark.parametrize("scheme", ["socks", "socks5"])
def test_a_command_ends_with_the_sentence(environment, tmp_path, hide, scheme):
    token = tmp_path / "token"
    token.write_text("t" * 43)
    hide("socksio")
    environment(ALL_PROXY=f"{scheme}://127.0.0.1:7891")
    done = called("knowledge", "list", "--registry", "http://192.0.2.1:5001", "--admin-token", str(token))
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert "variable ALL_PROXY" in sentence


EXCEPTIONS = [
    ("http://hub.example", "*"),
    ("http://hub.example", "hub.example"),
    ("http://hub.example", "example"),
    ("http://hub.example", ".example"),
    ("http://hub.example", "*.example"),
    ("http://hub.example", "HUB.Example."),
    ("http://hub.example", "one.example, hub.example"),
    ("http://hub.example", "one.example hub.example"),
    ("http://hub.example:5001", "hub.example:5001"),
    ("http://hub.example", "hub.example:80"),
    ("http://hub.example", "http://hub.example"),
    ("http://hub.example", "all://hub.example"),
    ("http://10.1.2.3:5001", "10.1.2.3"),
    ("http://10.1.2.3:5001", "10.0.0.0/8"),
    ("http://10.1.2.3:5001", "[::1],10.1.2.3:5001"),
    ("http://[fd00::1]:5001", "fd00::1"),
    ("http://[fd00::1]:5001", "[fd00::1]"),
    ("http://[fd00::1]:5001", "[FD00:0::1]:5001"),
    ("http://[fd00::1]:5001", "fd00::/8"),
]
PROXIED = [
    ("http://hub.example", ""),
    ("http://hub.example", "ub.example"),
    ("http://hub.example", "other.example"),
    ("http://hub.example:5001", "hub.example:5002"),
    ("http://hub.example", "https://hub.example"),
    ("http://10.1.2.3:5001", "11.0.0.0/8"),
    ("http://10.1.2.3:5001", "[::1]"),
    ("http://hub.example", "[::1],::1,[,],],[::1]:x,a:b:c,://,/8,10.0.0.0/99,.,*., ,http://,\u00fc,(,\\"),
]


@pytest.mark.parametrize(("url", "patterns"), EXCEPTIONS)
def test_no_proxy_names_exceptions(environment, url, patterns):
    environment(ALL_PROXY="http://proxy.example:3128", NO_PROXY=patterns)
    assert proxy_for(httpx.URL(url)) is None


@pytest.mark.parametrize(("url", "patterns"), PROXIED)
def test_no_proxy_excepts_nothing_else_and_is_never_an_error(environment, url, patterns):
    environment(ALL_PROXY="http://proxy.example:3128", NO_PROXY=patterns)
    assert proxy_for(httpx.URL(url)).url == "http://proxy.example:3128"
    HttpRegistry(url).close()


def test_requests_pass_through_the_proxy(environment, proxying):
    environment(HTTP_PROXY=proxying.url)
    with HttpRegistry("http://hub.example:5001") as registry:
        registry.check()
    assert proxying.requests[0][:2] == ("GET", "http://hub.example:5001/healthz")


@pytest.mark.parametrize("url", ["http://hub.example:5001", "https://hub.example"])
def test_a_proxy_that_does_not_run_is_one_sentence(environment, unused_url, url):
    environment(ALL_PROXY=unused_url)
    with HttpRegistry(url, patience=0) as registry, pytest.raises(ServiceUnavailableError) as caught:
        registry.check()
    assert caught.value.message == (
        f"No connection to the proxy of the variable ALL_PROXY ({unused_url}), which leads to the registry at {url}: "
        "is it running?"
    )


@pytest.mark.parametrize("url", ["http://hub.example:5001", "https://hub.example"])
def test_a_proxy_with_a_login_is_one_sentence(environment, refusing, url):
    environment(ALL_PROXY=refusing.url.replace("://", "://me:secret@"))
    with HttpRegistry(url) as registry, pytest.raises(ServiceUnavailableError) as caught:
        registry.check()
    assert "asks for a login" in caught.value.message
    assert "secret" not in caught.value.message
    assert len(refusing.requests) == 1
