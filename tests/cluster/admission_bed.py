"""The webhooks of the chart, called at a port of this machine, with certificates of the test's own."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any

from charts_bed import OPERATOR, only, render
from kube_api import Kube, Object
from pki import Authority

RESOURCES = {
    f"{kind}WebhookConfiguration": f"{kind.lower()}webhookconfigurations.admissionregistration.k8s.io"
    for kind in ("Mutating", "Validating")
}


class Certificate:
    """A certificate for 127.0.0.1 in the files that the operator reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "certificate"
        self.folder.mkdir(parents=True)
        self.authority = Authority(folder / "webhook-pki")
        self.renew("first")

    def renew(self, name: str) -> None:
        """Replace the files as a kubelet does: one after the other."""
        pair = self.authority.server(name)
        for file, content in (("tls.key", pair.key), ("tls.crt", pair.certificate)):
            new = self.folder / f"{file}.new"
            new.write_bytes(content.read_bytes())
            new.rename(self.folder / file)

    def served(self, port: int) -> str:
        """The name on the certificate that a port shows now."""
        trust = ssl.create_default_context(cafile=self.authority.certificate)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            subject: Any = secure.getpeercert() or {}
        return str(dict(part for (part,) in subject["subject"])["commonName"])

    @property
    def settings(self) -> Object:
        """The operator's settings."""
        return {"enabled": True, "certificateDir": str(self.folder)}


class Admission:
    """The webhook configurations of the chart for one namespace."""

    def __init__(self, kube: Kube, namespace: str, certificate: Certificate) -> None:
        self.kube = kube
        self._bundle = certificate.authority.certificate.read_text()
        source = {"source": "existingSecret", "existingSecret": "mine", "caBundle": self._bundle}
        values = {"watchNamespaces": [namespace], "webhook": {"certificate": source}}
        made = render(OPERATOR, values, release="dp", namespace=namespace)
        self._made = [only(made, kind) for kind in RESOURCES]

    def send_to(self, port: int, **further: object) -> None:
        """Install the configurations, or change where their calls go; it takes the API server a moment."""
        for body in self._made:
            changed = json.loads(json.dumps(body))
            (webhook,) = changed["webhooks"]
            service = webhook["clientConfig"].pop("service")
            webhook["clientConfig"]["url"] = f"https://127.0.0.1:{port}{service['path']}"
            self.kube.apply(changed | {"webhooks": [webhook | further]})

    def remove(self) -> None:
        """Take the configurations away."""
        for body in self._made:
            self.kube.delete(RESOURCES[body["kind"]], body["metadata"]["name"])
