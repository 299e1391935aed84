"""Admission webhooks: what CEL cannot say about a spec, and the finalizer from the first moment on.

Plain HTTPS on every replica, leader or not. The certificate is read again when its files change.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import DualPathError, SpecError
from dualpath_operator import metrics
from dualpath_operator.clusters import read_spec
from dualpath_operator.judgements import balance_of
from dualpath_operator.model import FINALIZER
from dualpath_operator.settings import WebhookSettings

log = logging.getLogger(__name__)

RELOAD_S = 1.0
"""Between two looks at the times of the certificate's files."""


def validate(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one AdmissionRequest. An object that is being deleted is never refused."""
    obj = request.get("object") or {}
    if request.get("operation") == "DELETE" or "deletionTimestamp" in obj.get("metadata", {}):
        return {"allowed": True}
    if request.get("operation") == "UPDATE" and (request.get("oldObject") or {}).get("spec") == obj.get(
        "spec"
    ):
        return {"allowed": True}  # finalizers and labels can be changed whatever the spec says
    try:
        # without a name yet, the API server makes one up
        spec = read_spec(obj.get("metadata", {}).get("name") or "generated", obj.get("spec"))
    except DualPathError as error:
        metrics.DENIALS.labels("spec").inc()
        return {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": str(error)}}
    return {"allowed": True, "warnings": warnings(spec)}


def warnings(spec: ClusterSpec) -> list[str]:
    """What is allowed, but worth a word."""
    wanted = {"prefill": spec.prefill.scaling.replicas, "decode": spec.decode.scaling.replicas}
    judged = balance_of(spec, wanted)[1]
    found = [judged.message] if judged.status is False else []
    if spec.storage.files is not None and spec.storage.files.claim_name is None:
        found.append(
            "spec.storage.files: the claim is made with ReadWriteMany; its storage class must offer that"
        )
    return [text[:120] for text in found] if found else []


def default(request: dict[str, Any]) -> dict[str, Any]:
    """The finalizer, so that a cluster is never seen without it."""
    meta = (request.get("object") or {}).get("metadata", {})
    present = meta.get("finalizers") or []
    if request.get("operation") != "CREATE" or FINALIZER in present:
        return {"allowed": True}
    patch = [{"op": "add", "path": "/metadata/finalizers", "value": [*present, FINALIZER]}]
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
    }


def _route(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        try:
            review = await request.json()
            asked = review["request"]
            uid = asked["uid"]
            response = answer(asked)
        except (ValueError, KeyError, TypeError, AttributeError):
            return web.Response(status=400, text="not an AdmissionReview")
        head = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return web.json_response({**head, "response": {"uid": uid, **response}})

    return handle


@asynccontextmanager
async def serving_webhooks(settings: WebhookSettings) -> AsyncIterator[int]:
    """Serve until the block ends; gives the port. Raises SpecError without a usable certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    stamp = _load(context, settings.certificate_dir)
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/validate", _route(validate))
    app.router.add_post("/default", _route(default))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    reloading = asyncio.create_task(_reload(context, settings.certificate_dir, stamp))
    try:
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        reloading.cancel()
        await runner.cleanup()


def _load(context: ssl.SSLContext, folder: Path) -> tuple[int, int]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    try:
        stamp = (certificate.stat().st_mtime_ns, key.stat().st_mtime_ns)
        # tried elsewhere first: a key that does not match would leave the serving context without one
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(
            f"{folder}: no usable certificate for the webhooks",
            cause=str(error),
            remedy="mount tls.crt and tls.key there, or set webhook.enabled to false",
        ) from None
    return stamp


async def _reload(context: ssl.SSLContext, folder: Path, stamp: tuple[int, int]) -> None:
    while True:
        await asyncio.sleep(RELOAD_S)
        try:
            current = ((folder / "tls.crt").stat().st_mtime_ns, (folder / "tls.key").stat().st_mtime_ns)
            if current != stamp:
                stamp = _load(context, folder)
                log.info("the webhooks' certificate was read again")
        except (OSError, SpecError) as error:
            log.warning("the webhooks' certificate cannot be read: %s", error)
