"""The certificates and kubeconfig files of a cluster, made anew for each."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from harness.kubernetes import addresses


class Certificates:
    """Two authorities, the cluster's own and that of its aggregation layer, and what they signed, in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def file(self, name: str) -> Path:
        return self.folder / name

    def make(self) -> Certificates:
        self.folder.mkdir(mode=0o700, parents=True)
        self._authority("ca", "kubernetes-ca")
        self._authority("front-proxy-ca", "front-proxy-ca")
        server = [
            *(f"DNS:{name}" for name in ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")),
            *(f"IP:{address}" for address in ("127.0.0.1", addresses.NODE, addresses.FIRST_SERVICE)),
        ]
        node = f"/CN=system:node:{addresses.NODE_NAME}/O=system:nodes"
        self._leaf("apiserver", "/CN=kube-apiserver", "serverAuth", server)
        self._leaf("kubelet-server", node, "serverAuth", [f"DNS:{addresses.NODE_NAME}", f"IP:{addresses.NODE}"])
        self._leaf("apiserver-kubelet-client", "/CN=apiserver-kubelet-client/O=system:masters", "clientAuth")
        self._leaf("front-proxy-client", "/CN=front-proxy-client", "clientAuth", authority="front-proxy-ca")
        self.kubeconfig("admin", "/CN=admin/O=system:masters")
        self.kubeconfig("kubelet", node)
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            self.kubeconfig(name, f"/CN=system:{name}")
        self._openssl("genrsa", "-out", "service-account.key", "2048")
        self._openssl("rsa", "-in", "service-account.key", "-pubout", "-out", "service-account.pub")
        return self

    def server(self, name: str, address: str) -> tuple[Path, Path]:
        """Makes a certificate for a server at an address, signed by the cluster's own authority; gives it and its key."""
        self._leaf(name, f"/CN={name}", "serverAuth", [f"IP:{address}"])
        return self.file(f"{name}.crt"), self.file(f"{name}.key")

    def kubeconfig(self, name: str, subject: str) -> Path:
        """Makes a client certificate, and gives a kubeconfig file that needs no other."""
        self._leaf(name, subject, "clientAuth")
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "waypost",
                    "cluster": {
                        "server": f"https://{addresses.NODE}:{addresses.API_PORT}",
                        "certificate-authority": str(self.file("ca.crt")),
                    },
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate": str(self.file(f"{name}.crt")),
                        "client-key": str(self.file(f"{name}.key")),
                    },
                }
            ],
            "contexts": [{"name": "waypost", "context": {"cluster": "waypost", "user": name}}],
            "current-context": "waypost",
        }
        path = self.file(f"{name}.kubeconfig")
        path.write_text(json.dumps(configuration, indent=1))
        path.chmod(0o600)
        return path

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"`openssl {' '.join(arguments)}` failed: {done.stderr.strip()}")

    def _key(self, name: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def _authority(self, name: str, common_name: str) -> None:
        self._key(name)
        request = ["req", "-x509", "-new", "-key", f"{name}.key", "-days", "3650", "-subj", f"/CN={common_name}"]
        self._openssl(*request, "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{name}.crt")

    def _leaf(self, name: str, subject: str, usage: str, names: list[str] | None = None, authority: str = "ca") -> None:
        self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        extensions = [
            "basicConstraints=CA:FALSE",
            "subjectKeyIdentifier=hash",
            "authorityKeyIdentifier=keyid",
            "keyUsage=critical,digitalSignature,keyEncipherment",
            f"extendedKeyUsage={usage}",
            *([f"subjectAltName={','.join(names)}"] if names else []),
        ]
        self.file(f"{name}.extensions").write_text("\n".join(extensions))
        signing = ["x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"]
        output = ["-CAcreateserial", "-days", "3650", "-extfile", f"{name}.extensions", "-out", f"{name}.crt"]
        self._openssl(*signing, *output)
