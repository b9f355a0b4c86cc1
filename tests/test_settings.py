"""Settings: which values each accepts, and that a bad one is reported without showing it."""

from ipaddress import ip_network

import pytest

import forked
from client import SECRET
from product import copy_of_the_service
from settings import SETTINGS, SettingError, read_settings
from starting import is_one_line_about

DEFAULTS = {
    "DATABASE_URL": None,
    "JWT_PUBLIC_KEY": None,
    "JWT_JWKS_URL": None,
    "JWT_SECRET": None,
    "JWT_ISSUER": "fabro-web",
    "JWT_AUDIENCE": None,
    "OIDC_CLIENT_ID": None,
    "OIDC_SCOPE": "openid profile email",
    "ALLOWED_USERS": None,
    "BLOCKED_USERS": None,
    "anthropic": False,
    "TRUSTED_USER_HEADER": None,
    "TRUSTED_PROXIES": None,
    "ANTHROPIC_API_KEY": None,
    "ANTHROPIC_BASE_URL": "https://api.anthropic.com",
    "ANTHROPIC_BODY": None,
    "openai": False,
    "OPENAI_API_KEY": None,
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
    "OPENAI_BODY": None,
    "PROVIDERS": None,
    "MODELS": None,
    "DEFAULT_MODEL": None,
    "TITLE_MODEL": None,
    "MAX_TOKENS": 16384,
    "THINKING": "keep",
    "MODEL_TIMEOUT": 600,
    "CONTINUE_LIMIT": 2,
    "REPLY_WAIT": 25,
    "WEB_CONNECTIONS": 4096,
    "GRACE": 20,
    "RATE_LIMIT": None,
    "TOKEN_LIMIT": None,
    "STORAGE_LIMIT": 1073741824,
    "MAX_FILE": 3932160,
    "RETENTION_DAYS": None,
    "METRICS_TOKEN": None,
    "ALLOWED_ORIGINS": None,
    "MAX_CONTENT_LENGTH": 1048576,
    "LOG_FORMAT": "text",
}


@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["not set", "empty", "blank"])
def test_every_setting_has_a_default(value):
    environment = {} if value is None else dict.fromkeys(SETTINGS, value)
    assert read_settings(environment) == DEFAULTS


GOOD = [
    ("DATABASE_URL", "sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    (
        "DATABASE_URL",
        " postgres://u:p%23%40@[::1]:5432/name?sslmode=require ",
        "postgres://u:p%23%40@[::1]:5432/name?sslmode=require",
    ),
    (
        "DATABASE_URL",
        "postgresql://u:p@a:5432,[::1]:5433/name",
        "postgresql://u:p@a:5432,[::1]:5433/name",
    ),
    (
        "JWT_JWKS_URL",
        "https://example.com/.well-known/jwks.json",
        "https://example.com/.well-known/jwks.json",
    ),
    ("JWT_SECRET", "ü" * 16, "ü" * 16),
    ("OIDC_SCOPE", "openid", "openid"),
    ("OIDC_SCOPE", "offline_access openid", "offline_access openid"),
    ("OIDC_SCOPE", "https://id/scopes?a=b openid x", "https://id/scopes?a=b openid x"),
    ("ALLOWED_USERS", " alice,bob ,, ", ["alice", "bob"]),
    ("ALLOWED_USERS", "alice@example.com,Bob", ["alice@example.com", "Bob"]),
    ("ALLOWED_USERS", "tailscale:alice@example.com", ["tailscale:alice@example.com"]),
    ("ANTHROPIC_BASE_URL", "http://127.0.0.1:4010/anthropic", "http://127.0.0.1:4010/anthropic"),
    ("MODELS", "a, b", ["a", "b"]),
    ("MODEL_TIMEOUT", "0.5", 0.5),
    ("CONTINUE_LIMIT", "0", 0),
    ("CONTINUE_LIMIT", "10", 10),
    ("REPLY_WAIT", "7", 7),
    ("WEB_CONNECTIONS", "16", 16),
    ("WEB_CONNECTIONS", "020", 20),
    ("WEB_CONNECTIONS", "100000", 100_000),
    ("GRACE", "0", 0),
    ("GRACE", "600", 600),
    ("MAX_TOKENS", "1", 1),
    ("RATE_LIMIT", "10/minute", (10, 60)),
    ("RATE_LIMIT", "1 / second", (1, 1)),
    ("RATE_LIMIT", "5/hour", (5, 3600)),
    ("RATE_LIMIT", "200/day", (200, 86400)),
    ("TOKEN_LIMIT", "2000000/month", (2000000, "month")),
    ("TOKEN_LIMIT", " 500 / day ", (500, "day")),
    ("MAX_FILE", "0", 0),
    ("RETENTION_DAYS", "90", 90),
    ("METRICS_TOKEN", "a-secret-of-16-c", "a-secret-of-16-c"),
    ("ALLOWED_ORIGINS", "*", ["*"]),
    (
        "ALLOWED_ORIGINS",
        "https://app.example.com,http://localhost:3000",
        ["https://app.example.com", "http://localhost:3000"],
    ),
    ("ALLOWED_ORIGINS", " HTTPS://App.Example.com , ,", ["https://app.example.com"]),
    ("ALLOWED_ORIGINS", "https://a:443,http://a:80", ["https://a", "http://a"]),
    ("ALLOWED_ORIGINS", "https://a:80,http://a:443", ["https://a:80", "http://a:443"]),
    (
        "ALLOWED_ORIGINS",
        "http://127.0.0.1:5173, http://[::1]:5173",
        ["http://127.0.0.1:5173", "http://[::1]:5173"],
    ),
    (
        "ALLOWED_ORIGINS",
        "capacitor://localhost,tauri://localhost",
        ["capacitor://localhost", "tauri://localhost"],
    ),
    (
        "ALLOWED_ORIGINS",
        "chrome-extension://abcdefghijklmnop,*",
        ["chrome-extension://abcdefghijklmnop", "*"],
    ),
    ("LOG_FORMAT", "json", "json"),
]


HEADERS = [
    "Remote-User",
    "X-Forwarded-User",
    "Tailscale-User-Login",
    "X-Auth-Request-Email",
    "x-forwarded-preferred-username",
    "Authuser",
    "Cf-Access-User-2",
]
PROXIES = [
    ("unix", ["unix"]),
    ("10.0.0.7", [ip_network("10.0.0.7/32")]),
    (" 10.0.0.0/8, ,unix ,fd00::/64", [ip_network("10.0.0.0/8"), "unix", ip_network("fd00::/64")]),
    ("::1", [ip_network("::1/128")]),
    ("::ffff:10.0.0.7", [ip_network("10.0.0.7/32")]),
    ("::ffff:10.0.0.0/104", [ip_network("10.0.0.0/8")]),
    ("::/0", [ip_network("::/0")]),
]


@pytest.mark.parametrize("value, read", [(header, header) for header in HEADERS])
def test_a_trusted_header_is_read(value, read):
    settings = read_settings({"TRUSTED_USER_HEADER": value, "TRUSTED_PROXIES": "unix"})
    assert settings["TRUSTED_USER_HEADER"] == read


@pytest.mark.parametrize("value, read", PROXIES)
def test_trusted_proxies_are_read(value, read):
    settings = read_settings({"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": value})
    assert settings["TRUSTED_PROXIES"] == read


@pytest.mark.parametrize("name, value, read", GOOD)
def test_a_good_value_is_read(name, value, read):
    assert read_settings({name: value})[name] == read


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"]
)
def test_a_key_or_a_url_switches_a_provider_on(name):
    settings = read_settings({name: "http://a-key-or-a-url"})
    assert [each for each in ("anthropic", "openai") if settings[each]] == [
        name.partition("_")[0].lower()
    ]


NO_URLS = [
    "odd",
    "ftp://a.b",
    "http://",
    "https:///path",
    "http:// a.b",
    "http://a.b/?key=hush",
    "http://a.b:odd",
    "http://a:99999",
    "http://[::1",
]


NO_ORIGINS = [
    ",",
    "null",
    "**",
    "app.example.com",
    "localhost:3000",
    "//app.example.com",
    "://app.example.com",
    "https://",
    "file://",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?query",
    "https://*.example.com",
    "https://*",
    "https://you:password@app.example.com",
    "https://app.example.com:",
    "https://app.example.com:0",
    "https://app.example.com:0443",
    "https://app.example.com:65536",
    "https://app.example.com:port",
    "https://bücher.example",
    "http://[::1",
    "https://app.example.com https://web.example.com",
    "https://app.example.com;https://web.example.com",
    "https://app.example.com,null",
]


BAD = {
    "DATABASE_URL": [
        "postgresql://user:hush@host",
        "postgresql://user:hush@host/",
        "postgresql://user:hu#sh@host/name",
        "postgresql://user:hu/sh@host/name",
        "postgresql://user:hu[sh@host/name",
        "postgresql://user:hush@host:odd/name",
        "postgresql://user:hush@host:99999/name",
        "postgresql://user:hush@host:0/name",
        "postgresql://user:hush@host:5432,other:odd/name",
        "postgresql://user:hush@host/name#hush",
        "sqlite:////tmp/hush#hush/parley.db",
    ],
    "JWT_JWKS_URL": [*NO_URLS, "file:///etc/passwd"],
    "JWT_SECRET": ["hush", "hush" * 7, "ü" * 15 + "x"],
    "OIDC_CLIENT_ID": ["hüsh", "a\nb", "a\x7f", "a" * 256],
    "OIDC_SCOPE": ["profile email", "openid2", "OPENID", 'openid "hush"', "openid\tx", "xopenid"],
    "ALLOWED_USERS": [",", " , ", "https://github.com/alice", "alice,github.com/bob"],
    "TRUSTED_USER_HEADER": [
        *("Authorization", "cookie", "HOST", "Origin", "X-Forwarded-For", "Content-Type"),
        *("content-length", "Remote_User", "Remote User", "Remote-User:", "-User", "7", "x" * 101),
        *("Sec-Fetch-Site", "X-Forwarded-Proto", "Connection", "Forwarded", "Accept", "X-Uſer"),
        *("Rémote-User", "Remote-User,X-User", "Remote-User\nX"),
    ],
    "TRUSTED_PROXIES": [
        *(",", "localhost", "proxy.example.com", "10.0.0.1/8", "10.0.0", "10.0.0.256", "*", "UNIX"),
        *("unix:/run/proxy.sock", "10.0.0.7:8000", "10.0.0.1-10.0.0.9", "[::1]", "010.0.0.1", "3"),
        *("fe80::1%eth0", "fe80::%eth0/64"),
        *("10.0.0.7 10.0.0.8", "10.0.0.7;unix", "fd00::1/64", "10.0.0.0/33", "unix,odd"),
    ],
    "ANTHROPIC_API_KEY": ["hush hush", "hush\nhush", "hushé", "hush\x7f", "hush\0"],
    "ANTHROPIC_BASE_URL": NO_URLS,
    "OPENAI_API_KEY": ["hush hush", "hush\r\nhush", "hush→"],
    "OPENAI_BASE_URL": NO_URLS,
    "MODELS": [",", "a," + "b" * 201],
    "DEFAULT_MODEL": ["a" * 201],
    "TITLE_MODEL": ["a" * 201],
    "THINKING": ["Keep", "none", "keep,live"],
    "MAX_TOKENS": ["0", "-1", "1.5", "odd", "1e3", "٣", "9999999999", "0x10", "1_000"],
    "MODEL_TIMEOUT": ["0", "0.0", "-1", "inf", "nan", "1e3", "odd", "1,5", ".5", "9999999"],
    "WEB_CONNECTIONS": ["0", "15", "015", "1e3", "odd", "1000000"],
    "GRACE": ["-1", "0.5", "601", "odd"],
    "CONTINUE_LIMIT": ["-1", "1.5", "odd", "1e3", "9999999999"],
    "REPLY_WAIT": ["0", "-1", "inf", "odd"],
    "RATE_LIMIT": [
        "10",
        "0/minute",
        "10/minutes",
        "/minute",
        "10/",
        "-1/day",
        "1.5/day",
        "odd",
        "10 per minute",
    ],
    "ALLOWED_ORIGINS": NO_ORIGINS,
    "MAX_FILE": ["-1", "odd", "4MB", "1e6"],
    "MAX_CONTENT_LENGTH": ["0", "-1", "odd", "1MB"],
    "LOG_FORMAT": ["odd", "JSON"],
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_bad_value_is_refused_without_showing_it(name, value):
    with pytest.raises(SettingError) as caught:
        read_settings({name: value})
    assert is_one_line_about(name, str(caught.value))


TRUSTED = ("TRUSTED_USER_HEADER", "TRUSTED_PROXIES")


def test_the_error_says_how_an_origin_is_written():
    with pytest.raises(
        SettingError,
        match="https://app.example.com or http://localhost:3000, without a slash or a path after it",
    ):
        read_settings({"ALLOWED_ORIGINS": "https://app.example.com/"})


@pytest.mark.parametrize("name, other", [TRUSTED, TRUSTED[::-1]])
def test_a_trusted_header_needs_proxies_and_the_other_way_round(name, other):
    values = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "unix"}
    with pytest.raises(SettingError, match=f"^{name}: {other} is set: say "):
        read_settings({other: values[other]})
    assert read_settings(values)["TRUSTED_PROXIES"] == ["unix"]


@pytest.mark.parametrize(
    "names",
    [
        ("JWT_SECRET", "JWT_PUBLIC_KEY"),
        ("JWT_SECRET", "JWT_JWKS_URL"),
        ("JWT_JWKS_URL", "JWT_PUBLIC_KEY"),
    ],
)
def test_two_kinds_of_key_are_refused(names):
    values = {
        "JWT_SECRET": SECRET,
        "JWT_PUBLIC_KEY": "a key",
        "JWT_JWKS_URL": "https://example.com/keys",
    }
    with pytest.raises(SettingError, match=f"^{names[0]}: .*{names[1]}"):
        read_settings({name: values[name] for name in names})


ISSUERS = [
    "https://id.example.com",
    "https://id.example.com/",
    "https://id.example.com:8443/realms/home",
    "HTTPS://[2001:db8::1]/",
    "http://127.0.0.1:9000",
    "http://127.8.9.1/a",
    "http://[::1]:9000",
    "http://localhost:9000/realms/home",
]
NO_ISSUERS = [
    None,  # then it is fabro-web
    *("fabro-web", "id.example.com", "https://", "https:///path", "ftp://id.example.com"),
    *("http://id.example.com", "http://localhost.example.com", "http://10.0.0.7", "http://0.0.0.0"),
    *("https://id.example.com?hush", "https://id.example.com/#hush", "https://id.example.com/?"),
    *("https://me:hush@id.example.com", "https://id.example.com:0", "https://id.example.com:99999"),
    *("https://bücher.example", "https://a;hush", "https://a hush", "https://[::1", "https://[1]"),
    *("http://127.1", "http://2130706433", "http://127.0.0.1.example.com", "http://[::2]"),
]


@pytest.mark.parametrize("issuer", ISSUERS)
def test_users_may_sign_in_at_an_issuer(issuer):
    settings = read_settings({"OIDC_CLIENT_ID": "a client", "JWT_ISSUER": issuer})
    assert (settings["OIDC_CLIENT_ID"], settings["JWT_ISSUER"]) == ("a client", issuer)


@pytest.mark.parametrize("issuer", NO_ISSUERS)
def test_users_may_sign_in_at_no_other_issuer(issuer):
    with pytest.raises(SettingError) as caught:
        read_settings({"OIDC_CLIENT_ID": "parley", "JWT_ISSUER": issuer})
    told = str(caught.value)
    assert is_one_line_about("JWT_ISSUER", told) and "OIDC_CLIENT_ID" in told
    assert read_settings({"JWT_ISSUER": issuer})


@pytest.mark.parametrize("name", ["JWT_PUBLIC_KEY", "JWT_SECRET"])
def test_users_may_sign_in_only_if_no_other_key_verifies(name):
    given = {"OIDC_CLIENT_ID": "parley", "JWT_ISSUER": "https://id.example.com", name: SECRET}
    with pytest.raises(SettingError, match=f"^OIDC_CLIENT_ID: set only one of this and {name}$"):
        read_settings(given)


def test_the_environment_overrides_a_file_of_settings(tmp_path):
    folder = copy_of_the_service(tmp_path / "service")
    (folder / ".env").write_text(f"MAX_TOKENS=odd\nJWT_SECRET={SECRET}\n")
    words = ["-m", "flask", "token", "alice"]
    bad = forked.run(words, folder, {})
    assert (bad.returncode, bad.stdout) == (1, "")
    assert is_one_line_about("MAX_TOKENS", bad.stderr.removesuffix("\n"))
    good = forked.run(words, folder, {"MAX_TOKENS": "5"})
    assert (good.returncode, good.stderr) == (0, "")
    assert not (folder / "instance" / "jwt_key.pem").exists()  # the file's secret was read


# Providers

PROVIDERS = [
    ("a=http://h", [("a", "openai", "http://h")]),
    (" a = http://h", None),
    ("ollama=http://127.0.0.1:11434/v1, w_2=anthropic+https://u:p@h:8443/x ,", "ollama w_2"),
    ("claude=https://h/v1,echo_2=https://[::1]:1/v1", "claude echo_2"),
]


NO_PROVIDERS = [
    "http://h/v1",
    "a=",
    "a=h/v1",
    "a=openai+http://h",
    "a=+http://h",
    "a=anthropichttp://h",
    "a=anthropic+ftp://h",
    "A=http://h",
    "1a=http://h",
    "_a=http://h",
    "ä=http://h",
    "a-b=http://h",
    "a=http://h b=http://h",
    "a=http://h,a=http://g",
    "anthropic=http://h",
    "openai=http://h",
    "echo=http://h",
    "a=http://h?x=1",
    "a=http://h#x",
    "a=http://h:99999",
    "a=http://h:0",
    "a=http://[::1",
    "a=http://h,b",
]


@pytest.mark.parametrize("text, expected", PROVIDERS)
def test_a_list_of_providers_is_read(text, expected):
    if expected is None:
        with pytest.raises(SettingError):
            read_settings({"PROVIDERS": text})
    else:
        found = read_settings({"PROVIDERS": text})["PROVIDERS"]
        assert (
            found if isinstance(expected, list) else " ".join(name for name, *_ in found)
        ) == expected


@pytest.mark.parametrize("text", NO_PROVIDERS)
def test_a_value_that_names_no_provider_is_refused(text):
    with pytest.raises(SettingError, match="^PROVIDERS: write it like ollama=http"):
        read_settings({"PROVIDERS": text})


@pytest.mark.parametrize("key", ["with blank", "with\nline", "schlüssel", "\x7f"])
def test_the_error_names_a_key_that_no_header_can_carry(key):
    with pytest.raises(
        SettingError,
        match="^NEAR_API_KEY: it has characters that no key has: give only ASCII without spaces$",
    ):
        read_settings({"PROVIDERS": "near=http://h", "NEAR_API_KEY": key})


def test_a_key_without_its_provider_does_nothing():
    assert "NEAR_API_KEY" not in read_settings(
        {"PROVIDERS": "far=http://h", "NEAR_API_KEY": "with blank"}
    )
    assert read_settings({"PROVIDERS": "far=http://h", "FAR_API_KEY": " k "})["FAR_API_KEY"] == "k"
