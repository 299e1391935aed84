"""What the webhooks answer: refusals, warnings, the finalizer, and over TLS with the newest certificate."""

from __future__ import annotations

import base64
import json
import ssl

import aiohttp
import pytest
from pki import Authority
from samples import BAD, MINIMAL, changed, cluster

from dualpath_api.errors import SpecError
from dualpath_operator import webhooks
from dualpath_operator.settings import WebhookSettings

FINALIZER = "dualpath.io/finalizer"
NODE = {"computeNics": 8, "computeNicBytes": 50 * 10**9, "storageBytes": 50 * 10**9, "dramBytes": 500 * 10**9}
OWNED = changed(MINIMAL, {"decode.podTemplate.spec": {"hostNetwork": True, "subdomain": "a"}})


def request(spec: object, operation: str = "CREATE", **further: object) -> dict:
    return {"operation": operation, "object": cluster(spec), **further}


def message(answer: dict) -> str:
    assert answer["allowed"] is False
    assert answer["status"]["code"] == 422
    return answer["status"]["message"]


def test_a_good_cluster_is_taken():
    claimed = changed(MINIMAL, {"storage.files.claimName": "kv"})
    assert webhooks.validate(request(claimed)) == {"allowed": True, "warnings": []}


def test_a_refusal_names_field_cause_and_remedy_of_all_problems():
    told = message(webhooks.validate(request(OWNED)))
    assert "spec.decode.podTemplate.spec.hostNetwork" in told
    assert "set spec.fabric.mode: HostNetwork" in told
    assert "spec.decode.podTemplate.spec.subdomain" in told


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.then is None], ids=str)
def test_what_the_api_server_refuses_is_refused_here_too(bad):
    body = cluster(changed(MINIMAL, bad.spec), bad.name)
    assert message(webhooks.validate({"operation": "CREATE", "object": body}))


@pytest.mark.parametrize("garbage", [None, [], 3, "a", {}, {"model": []}, {"prefill": None}])
def test_garbage_is_refused_in_words(garbage):
    assert "remedy" in message(webhooks.validate(request(garbage)))


def test_deletion_and_whatever_leaves_the_spec_alone_are_always_allowed():
    spec = OWNED
    assert webhooks.validate(request(spec, "DELETE"))["allowed"]
    going = request(spec, "UPDATE")
    going["object"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert webhooks.validate(going)["allowed"]
    assert webhooks.validate(request(spec, "UPDATE", oldObject=cluster(spec)))["allowed"]
    assert not webhooks.validate(request(spec, "UPDATE", oldObject=cluster(MINIMAL)))["allowed"]


def test_a_name_to_be_generated_is_no_problem():
    body = cluster(MINIMAL)
    body["metadata"] = {"generateName": "a-", "namespace": "default"}
    assert webhooks.validate({"operation": "CREATE", "object": body})["allowed"]


def test_a_claim_that_is_made_and_a_ratio_with_a_bottleneck_are_worth_a_warning():
    spec = changed(MINIMAL, {"hardware": NODE, "prefill.scaling.replicas": 64})
    ratio, claim = webhooks.validate(request(spec))["warnings"]
    assert ratio.startswith("P/D is 64.00, outside ")
    assert "ReadWriteMany" in claim
    assert all(len(text) <= 120 for text in (ratio, claim))


def test_only_a_new_cluster_without_the_finalizer_gets_it():
    answer = webhooks.default(request(MINIMAL))
    (change,) = json.loads(base64.b64decode(answer["patch"]))
    assert change == {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}
    kept = request(MINIMAL)
    kept["object"]["metadata"]["finalizers"] = ["theirs"]
    (change,) = json.loads(base64.b64decode(webhooks.default(kept)["patch"]))
    assert change["value"] == ["theirs", FINALIZER]
    kept["object"]["metadata"]["finalizers"] = [FINALIZER]
    assert webhooks.default(kept) == {"allowed": True}
    assert webhooks.default(request(MINIMAL, "UPDATE")) == {"allowed": True}


async def post(session: aiohttp.ClientSession, url: str, body: object) -> tuple[int, object]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(url, data=data) as answer:
        return answer.status, await answer.json() if answer.status == 200 else await answer.text()


async def test_reviews_are_answered_over_tls_and_anything_else_with_400(tmp_path):
    authority = Authority(tmp_path / "pki")
    install(authority.server("one"), tmp_path)
    trust = ssl.create_default_context(cafile=authority.certificate)
    settings = WebhookSettings(host="127.0.0.1", port=0, certificate_dir=tmp_path)
    async with (
        webhooks.serving_webhooks(settings) as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
    ):
        root = f"https://127.0.0.1:{port}"
        status, review = await post(session, f"{root}/validate", {"request": {"uid": "u", **request(OWNED)}})
        assert (status, review["kind"], review["response"]["uid"]) == (200, "AdmissionReview", "u")
        assert not review["response"]["allowed"]
        for path in ("/validate", "/default"):
            for garbage in (b"", b"\xff", b"[]", b"{}", b'{"request": 3}', {"request": {"object": []}}):
                assert (await post(session, root + path, garbage))[0] == 400
        assert (await post(session, f"{root}/other", {}))[0] == 404


def install(pair, folder) -> None:
    (folder / "tls.key").write_bytes(pair.key.read_bytes())
    (folder / "tls.crt").write_bytes(pair.certificate.read_bytes())


async def test_without_a_usable_certificate_nothing_is_served_and_the_remedy_is_told(tmp_path):
    for content in (None, "not a certificate"):
        for name in ("tls.crt", "tls.key"):
            if content is not None:
                (tmp_path / name).write_text(content)
        with pytest.raises(SpecError, match=r"mount tls\.crt and tls\.key"):
            async with webhooks.serving_webhooks(WebhookSettings(certificate_dir=tmp_path, port=0)):
                pass


def test_a_pair_that_does_not_match_leaves_the_former_certificate_in_use(tmp_path):
    authority = Authority(tmp_path / "pki")
    install(authority.server("one"), tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    webhooks._load(context, tmp_path)
    (tmp_path / "tls.crt").write_bytes(authority.server("two").certificate.read_bytes())
    with pytest.raises(SpecError):
        webhooks._load(context, tmp_path)
    assert handshake(context, authority)["subject"] == ((("commonName", "one"),),)


def handshake(server: ssl.SSLContext, authority: Authority) -> dict:
    """The certificate that a client gets, without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = ssl.create_default_context(cafile=authority.certificate)
    ends = [
        trust.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert()
