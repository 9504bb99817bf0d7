"""People sign in: the page and its form, codes, tokens, and what ends them. By HTTP, as no browser would do it."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from harness import http
from harness.postgresql import programs
from harness.sign_in import Browser
from interchange.calls import COMPUTE_SCOPE, Api, connect, metric, oauth, sql

NATIVE = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
SCOPES = f"openid urn:globus:auth:scope:auth.globus.org:manage_projects {COMPUTE_SCOPE}"
PASSWORD = "correct horse battery"
VERIFIER = "v" * 64


def challenge(verifier=VERIFIER):
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def authorize_url(interchange, **changes):
    """Where a native client sends its user."""
    query = {
        "client_id": NATIVE,
        "redirect_uri": f"{interchange.url}/v2/web/auth-code",
        "scope": SCOPES,
        "state": "_default",
        "response_type": "code",
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
        "access_type": "offline",
        **changes,
    }
    return f"{interchange.url}/v2/oauth2/authorize?" + urlencode(
        {name: value for name, value in query.items() if value is not None}
    )


def token_call(interchange, path="token", **form):
    """A native client's call to the token service: status and JSON."""
    return oauth(interchange, None, path, **{"client_id": NATIVE, **form})


def redeem(interchange, code, **changes):
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": VERIFIER,
        "redirect_uri": f"{interchange.url}/v2/web/auth-code",
        **changes,
    }
    return token_call(interchange, **form)


def code_of(interchange, user, **changes):
    page = Browser(interchange.url).sign_in(authorize_url(interchange, **changes), user.name, user.password)
    assert page.status == 303, (page.status, page.problem)
    return page.answer["code"]


def tokens_of(interchange, user, **changes):
    """What a client has once the user has signed in, by resource server; the first answer under "first"."""
    status, first = redeem(interchange, code_of(interchange, user, **changes))
    assert status == 200, first
    found = {token["resource_server"]: token for token in [first, *first["other_tokens"]]}
    return {**found, "first": first}


class UserApi(Api):
    """A user's calls."""

    def __init__(self, interchange, user, tokens):
        self.interchange = interchange
        self.id = user.id
        self.tokens = {
            "compute": tokens["funcx_service"]["access_token"],
            "auth": tokens["auth.globus.org"]["access_token"],
        }


@pytest.fixture(scope="session")
def ada(interchange):
    return interchange.create_user("Ada@example.org", PASSWORD)


@pytest.fixture
def somebody_new(interchange, request):
    """A user of this test's own."""
    name = request.node.name.lower().translate({ord(letter): "-" for letter in "[]"})[:100]
    return interchange.create_user(name, PASSWORD)


def claims_of(id_token):
    """The claims, not verified: `test_user_app` has the SDK verify them."""
    part = id_token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_a_user_signs_in_and_gets_tokens_for_each_service_and_an_id_token(interchange, ada):
    page = Browser(interchange.url).sign_in(
        authorize_url(interchange, state="a&b", nonce="n"), "ADA@example.org ", PASSWORD
    )
    assert page.status == 303 and page.headers["cache-control"] == "no-store"
    assert page.headers["location"].startswith(f"{interchange.url}/v2/web/auth-code?")
    assert page.answer["state"] == "a&b"
    status, first = redeem(interchange, page.answer["code"])
    assert status == 200
    (other,) = first["other_tokens"]
    assert first["resource_server"] == "auth.globus.org" and other["resource_server"] == "funcx_service"
    assert f"{first['scope']} {other['scope']}" == SCOPES
    for token in (first, other):
        assert token["token_type"] == "Bearer" and token["expires_in"] == 172800
        assert token["access_token"] and token["refresh_token"]
    claims = claims_of(first["id_token"])
    half = hashlib.sha256(first["access_token"].encode()).digest()[:16]
    assert claims["at_hash"] == base64.urlsafe_b64encode(half).decode().rstrip("=")
    assert (claims["sub"], claims["aud"], claims["nonce"]) == (ada.id, NATIVE, "n")
    assert claims["preferred_username"] == "ada@example.org" and claims["exp"] > claims["iat"] >= claims["auth_time"]
    _, text = http.call("GET", f"{interchange.url}/.well-known/openid-configuration")
    assert claims["iss"] == json.loads(text)["issuer"] == interchange.url


def test_a_users_identity_owns_what_the_user_makes_and_nobody_elses(interchange, ada, alice):
    api = UserApi(interchange, ada, tokens_of(interchange, ada))
    told = api.done("GET", "/v2/oauth2/userinfo", server="auth")
    assert told["sub"] == ada.id and [identity["sub"] for identity in told["identity_set"]] == [ada.id]
    (identity,) = api.done("GET", f"/v2/api/identities?ids={ada.id}", server="auth")["identities"]
    assert (identity["id"], identity["username"]) == (ada.id, "ada@example.org")
    assert api.done("GET", f"/v2/api/identities?ids={alice.id}", server="auth") == {"identities": []}
    endpoint, function = api.endpoint()["endpoint_id"], api.function()
    assert api.submit(endpoint, function)["tasks"][function]
    assert api.done("GET", f"/v2/endpoints/{endpoint}")["owner"] == ada.id
    assert alice.call("DELETE", f"/v2/endpoints/{endpoint}")[0] == 403
    hers = alice.endpoint()["endpoint_id"]
    assert api.call("DELETE", f"/v2/endpoints/{hers}")[0] == 403
    assert api.call("GET", "/v2/oauth2/userinfo")[0] == 403, "a token for one service is good for another"


def test_a_template_endpoint_is_told_which_user_submits(interchange, ada, speak):
    api = UserApi(interchange, ada, tokens_of(interchange, ada))
    registration, function = api.endpoint("template"), api.function()
    api.submit(registration["endpoint_id"], function)
    ((_, body),) = speak(registration).tasks(1)
    command = json.loads(body)
    assert (command["globus_effective_identity"], command["globus_username"]) == (ada.id, "ada@example.org")
    assert command["globus_identity_set"] == [{"sub": ada.id}]


def test_a_refresh_token_gives_new_access_tokens_and_stays_the_same(interchange, ada):
    tokens = tokens_of(interchange, ada)
    old = tokens["funcx_service"]
    status, new = token_call(interchange, grant_type="refresh_token", refresh_token=old["refresh_token"])
    assert status == 200 and new["other_tokens"] == []
    assert new["access_token"] != old["access_token"] and new["refresh_token"] == old["refresh_token"]
    assert (new["resource_server"], new["scope"]) == ("funcx_service", COMPUTE_SCOPE) and "id_token" not in new
    for token in (old, new):
        assert UserApi(interchange, ada, {**tokens, "funcx_service": token}).call("GET", "/v2/endpoints")[0] == 200
    wider = token_call(
        interchange, grant_type="refresh_token", refresh_token=old["refresh_token"], scope=f"openid {COMPUTE_SCOPE}"
    )
    assert wider[0] == 400 and wider[1]["error"] == "invalid_scope"


def test_who_does_not_ask_for_refresh_tokens_gets_none(interchange, ada):
    tokens = tokens_of(interchange, ada, access_type="online")
    assert "refresh_token" not in tokens["first"] and "refresh_token" not in tokens["funcx_service"]


def test_a_code_that_is_used_twice_ends_what_it_gave(interchange, ada):
    code = code_of(interchange, ada)
    _, first = redeem(interchange, code)
    tokens = {token["resource_server"]: token for token in [first, *first["other_tokens"]]}
    api = UserApi(interchange, ada, tokens)
    assert api.call("GET", "/v2/endpoints")[0] == 200
    status, again = redeem(interchange, code)
    assert (status, again["error"]) == (400, "invalid_grant")
    assert api.call("GET", "/v2/endpoints")[0] == 401
    for token in tokens.values():
        status, refused = token_call(interchange, grant_type="refresh_token", refresh_token=token["refresh_token"])
        assert (status, refused["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 64},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:1/"},
        {"client_id": "native"},
    ],
    ids=["verifier", "no-verifier", "redirect", "client"],
)
def test_a_code_is_good_for_its_client_address_and_verifier_only(interchange, ada, change):
    if change.get("client_id") == "native":
        made = json.loads(interchange.command("client", "create", "--name", "another", "--native", "--json"))
        assert made["client_secret"] is None
        change = {"client_id": made["client_id"]}
    code = code_of(interchange, ada)
    status, refused = redeem(interchange, code, **change)
    assert (status, refused["error"]) == (400, "invalid_grant")
    status, refused = redeem(interchange, code)
    assert (status, refused["error"]) == (400, "invalid_grant"), "it can be tried again"


def test_the_page_is_safe_from_frames_scripts_and_other_sites(interchange, ada):
    browser = Browser(interchange.url)
    url = authorize_url(interchange, prefill_named_grant="<script>alert(1)</script>", login_hint='"><i>')
    page = browser.call("GET", url)
    policy = page.headers["content-security-policy"]
    for rule in ("default-src 'none'", "form-action 'self';", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert page.headers["x-frame-options"] == "DENY" and page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["referrer-policy"] == "no-referrer"
    assert "HttpOnly" in page.headers["set-cookie"] and "SameSite=Lax" in page.headers["set-cookie"]
    assert "<script" not in page.text and "<i>" not in page.text
    fields = {"form": page.form, "name": ada.name, "password": PASSWORD, "answer": "allow"}
    # Another site can send the form, but has neither the cookie nor what belongs to it.
    for strangers, sent in (
        (Browser(interchange.url), fields),
        (browser, {**fields, "form": "x"}),
        (browser, {**fields, "form": ""}),
        (Browser(interchange.url, {"waypost_sign_in": "a" * 43}), fields),
    ):
        refused = strangers.call("POST", url, sent)
        assert refused.status == 403 and "out of date" in refused.problem
    assert browser.call("POST", url, fields).status == 303
    # A second page in the same browser leaves the first one good.
    browser.call("GET", url)
    assert browser.call("POST", url, fields).status == 303


def test_the_page_that_shows_the_code_shows_nothing_else(interchange, ada):
    browser = Browser(interchange.url)
    location = browser.sign_in(authorize_url(interchange), ada.name, PASSWORD).headers["location"]
    page = browser.call("GET", location)
    (code,) = parse_qs(urlsplit(location).query)["code"]
    assert page.status == 200 and f'value="{code}"' in page.text
    assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "no-referrer"
    for query in ("code=call+this+number", "code=%3Cb%3E", "error_description=call+this+number", ""):
        page = browser.call("GET", f"{interchange.url}/v2/web/auth-code?{query}")
        assert page.status == 400 and "call" not in page.text and "<b>" not in page.text


def test_who_does_not_allow_it_sends_the_client_away(interchange, ada):
    url = authorize_url(interchange, redirect_uri="http://127.0.0.1:9/back?a=b")
    page = Browser(interchange.url).sign_in(url, "", "", answer="deny")
    assert page.headers["location"].startswith("http://127.0.0.1:9/back?a=b&")
    assert page.answer["error"] == "access_denied" and page.answer["state"] == "_default"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"client_id": "x"}, "not a UUID"),
        ({"client_id": "00000000-0000-0000-0000-00000000000f"}, "There is no client"),
        ({"redirect_uri": "https://evil.example/v2/web/auth-code"}, "not registered"),
        ({"redirect_uri": None}, "not registered"),
    ],
)
def test_a_link_of_a_client_that_may_be_an_impostor_goes_nowhere(interchange, change, words):
    page = Browser(interchange.url).call("GET", authorize_url(interchange, **change))
    assert page.status == 400 and words in page.problem and "location" not in page.headers


def test_a_client_with_a_secret_cannot_be_spoken_for_without_it(interchange, ada):
    where = "https://app.example/callback"
    made = json.loads(interchange.command("client", "create", "--name", "app", "--redirect-uri", where, "--json"))
    code = code_of(interchange, ada, client_id=made["client_id"], redirect_uri=where)
    status, refused = redeem(interchange, code, client_id=made["client_id"], redirect_uri=where)
    assert (status, refused["error"]) == (401, "invalid_client")
    proved = {"client_id": made["client_id"], "client_secret": made["client_secret"], "redirect_uri": where}
    assert redeem(interchange, code, **proved)[0] == 200
    # Its user cannot be taken for a client either.
    status, refused = token_call(
        interchange, client_id=ada.id, client_secret=PASSWORD, grant_type="client_credentials", scope=COMPUTE_SCOPE
    )
    assert (status, refused["error"]) == (401, "invalid_client")
    page = Browser(interchange.url).call("GET", authorize_url(interchange, client_id=ada.id))
    assert page.status == 400


def test_wrong_passwords_are_slowed_down_for_names_that_are_there_and_that_are_not(interchange, somebody_new):
    for name in (somebody_new.name, "nobody-has-this-name"):
        counted_as = hashlib.sha256(name.encode()).hexdigest()
        literal = f"'\\x{counted_as}'" if interchange.database.startswith("postgres") else f"x'{counted_as}'"
        row = f"sign_in_attempts {{}} WHERE name_digest = {literal}"
        url = authorize_url(interchange)
        for _ in range(6):
            page = Browser(interchange.url).sign_in(url, name, "wrong")
            assert (page.status, page.problem) == (403, "The name or the password is wrong.")
        assert sql(interchange, f"SELECT attempts, next_at - last_at FROM {row.format('')}") == ["6|2000"]
        # As if it were a longer pause, so that a slow machine is not done with it.
        sql(interchange, f"UPDATE {row.format('SET next_at = last_at + 1000000')}")
        before = metric(interchange, "sign_ins_total", outcome="too_early")
        page = Browser(interchange.url).sign_in(url, name, PASSWORD)
        assert page.status == 429 and "too many wrong attempts" in page.problem, page.problem
        assert 500 < int(page.headers["retry-after"]) <= 1000
        assert metric(interchange, "sign_ins_total", outcome="too_early") == before + 1
        sql(interchange, f"UPDATE {row.format('SET next_at = 0')}")
    page = Browser(interchange.url).sign_in(authorize_url(interchange), somebody_new.name, PASSWORD)
    assert page.status == 303
    page = Browser(interchange.url).sign_in(authorize_url(interchange), somebody_new.name, "wrong")
    assert page.status == 403, "they are still counted"


def test_a_revoked_token_is_no_longer_good(interchange, ada, alice):
    tokens = tokens_of(interchange, ada)
    api = UserApi(interchange, ada, tokens)
    token = tokens["funcx_service"]
    status, told = oauth(interchange, alice.client, "token/introspect", token=token["access_token"])
    assert status == 200 and told["active"] is True
    assert (told["sub"], told["client_id"], told["scope"]) == (ada.id, NATIVE, COMPUTE_SCOPE)
    assert told["aud"] == ["funcx_service"] and told["username"] == "ada@example.org" and told["exp"] > told["iat"]
    # Another's client cannot revoke it, and nobody can introspect without a secret.
    assert oauth(interchange, alice.client, "token/revoke", token=token["refresh_token"])[0] == 200
    assert api.call("GET", "/v2/endpoints")[0] == 200
    assert token_call(interchange, "token/introspect", token=token["access_token"])[0] == 401
    assert token_call(interchange, "token/revoke", token=token["refresh_token"]) == (200, {"active": False})
    assert api.call("GET", "/v2/endpoints")[0] == 401
    assert api.call("GET", "/v2/oauth2/userinfo", server="auth")[0] == 200
    assert oauth(interchange, alice.client, "token/introspect", token=token["access_token"])[1] == {"active": False}
    status, refused = token_call(interchange, grant_type="refresh_token", refresh_token=token["refresh_token"])
    assert (status, refused["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("how", ["password", "remove"])
def test_a_new_password_and_a_removed_user_end_what_was_signed_in(interchange, somebody_new, how):
    tokens = tokens_of(interchange, somebody_new)
    api = UserApi(interchange, somebody_new, tokens)
    connection = connect(api.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"])
    if how == "password":
        interchange.command("user", "password", somebody_new.name, text="another password\n")
    else:
        assert "connections are closed" in interchange.command("user", "remove", somebody_new.name.upper())
    assert api.call("GET", "/v2/endpoints")[0] == 401
    status, refused = token_call(
        interchange, grant_type="refresh_token", refresh_token=tokens["funcx_service"]["refresh_token"]
    )
    assert (status, refused["error"]) == (400, "invalid_grant")
    page = Browser(interchange.url).sign_in(authorize_url(interchange), somebody_new.name, PASSWORD)
    assert page.status == 403
    if how == "remove":
        again = interchange.create_user(somebody_new.name, PASSWORD)
        assert again.id != somebody_new.id
        listed = json.loads(interchange.command("user", "list", "--json"))
        assert [user["id"] for user in listed if user["name"] == somebody_new.name] == [again.id]
    else:
        connection.close()


def test_the_command_refuses_names_and_passwords_that_are_no_good(interchange, ada):
    for arguments, text, words in (
        (["add", "a b"], PASSWORD, "can't be a name"),
        (["add", "short"], "seven77", "8 to 128 characters"),
        (["add", "nothing"], "", "8 to 128 characters"),
        (["add", ada.name.upper()], PASSWORD, "there is a user ada@example.org already"),
        (["remove", "nobody"], "", "there is no user nobody"),
    ):
        with pytest.raises(RuntimeError, match=words):
            interchange.command("user", *arguments, text=f"{text}\n")
    clients = interchange.command("client", "list")
    assert ada.id in interchange.command("user", "list") and ada.id not in clients


def test_no_secret_of_a_user_is_in_the_log_or_the_database(interchange, somebody_new):
    tokens = tokens_of(interchange, somebody_new)
    secrets = [PASSWORD, *(token[kind] for token in tokens.values() for kind in ("access_token", "refresh_token"))]
    code = code_of(interchange, somebody_new)
    log = interchange.process.log.read_text()
    assert "a user has signed in" in log
    stored = _database(interchange)
    assert somebody_new.name.encode() in stored
    for secret in [*secrets, code]:
        assert secret not in log and secret.encode() not in stored
    assert b"PRIVATE KEY" not in stored


def _database(interchange):
    if interchange.database.startswith("postgres"):
        return subprocess.run(
            [programs() / "pg_dump", "--inserts", interchange.database], check=True, timeout=60, capture_output=True
        ).stdout
    return b"".join(path.read_bytes() for path in interchange.folder.glob("interchange.db*"))
