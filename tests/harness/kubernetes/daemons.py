"""What each program of a cluster is told: its command line and its configuration."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.kubernetes import addresses, programs
from harness.kubernetes.certificates import Certificates

PAUSE = "localhost/waypost-pause:1"
"""The image of the process that holds a pod's network. Every cluster has it."""

ETCD = "127.0.0.1:2379"
"""In the cluster's own network, like every address here."""


def _program(name: str) -> Path:
    return next(programs.path(program) for program in programs.CLUSTER if program.file == name)


@dataclass(frozen=True)
class Node:
    """What tells the nodes on one machine apart."""

    name: str = addresses.NODE_NAME
    port: int = 10250
    """The kubelet's."""
    health_port: int = 10248
    control_group: str = ""
    """Below the cluster's own."""
    taint: str = ""
    """Keeps away what does not tolerate it."""


FIRST = Node()


class Daemons:
    """Command lines by the program's name, for a cluster whose files are in `folder`. Another node's files are in another
    folder; the addresses of its pods are kept in the first one's, `pod_addresses`, for all are on one bridge."""

    def __init__(self, folder: Path, certificates: Certificates, node: Node = FIRST, pod_addresses: Path | None = None):
        self.folder = folder
        self.certificates = certificates
        self.node = node
        self.pod_addresses = pod_addresses or folder / "pod-addresses"
        self.containerd_socket = folder / "containerd.sock"
        # What pods use of a volume is looked at once a minute by default, and only then is too much noticed.
        self.volumes_looked_at_every = "5s"
        # Below this much free memory the kubelet evicts pods, the worst of them first.
        self.memory_wanted_free: str | None = None

    @property
    def kubelet_credentials(self) -> str:
        """The name of the kubelet's kubeconfig."""
        return "kubelet" if self.node == FIRST else f"kubelet-{self.node.name}"

    def _certificate(self, name: str) -> str:
        return str(self.certificates.file(name))

    def _file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def containerd(self) -> list[str | Path]:
        runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if runc is None:
            raise FileNotFoundError("runc is missing (Debian: apt-get install runc)")
        network = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods0",
                    "isGateway": True,
                    "isDefaultGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.pod_addresses),
                        "ranges": [[{"subnet": addresses.POD_NETWORK}]],
                    },
                }
            ],
        }
        self._file("network/10-pods.conflist", json.dumps(network))
        configuration = f"""version = 3
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{self.containerd_socket}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering it takes a capability that not every machine's root has.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{_program("bridge").parent}"]
    conf_dir = "{self.folder}/network"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
"""
        return [_program("containerd"), "--config", self._file("containerd.toml", configuration)]

    def etcd(self) -> list[str | Path]:
        peer = "http://127.0.0.1:2380"
        return [
            _program("etcd"),
            "--name=one",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=http://{ETCD}",
            f"--advertise-client-urls=http://{ETCD}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=one={peer}",
            # The cluster does not outlive the machine.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def kube_apiserver(self) -> list[str | Path]:
        certificate = self._certificate
        return [
            _program("kube-apiserver"),
            f"--etcd-servers=http://{ETCD}",
            f"--bind-address={addresses.NODE}",
            f"--advertise-address={addresses.NODE}",
            f"--secure-port={addresses.API_PORT}",
            f"--service-cluster-ip-range={addresses.SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={certificate('ca.crt')}",
            f"--tls-cert-file={certificate('apiserver.crt')}",
            f"--tls-private-key-file={certificate('apiserver.key')}",
            f"--kubelet-certificate-authority={certificate('ca.crt')}",
            f"--kubelet-client-certificate={certificate('apiserver-kubelet-client.crt')}",
            f"--kubelet-client-key={certificate('apiserver-kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certificate('service-account.pub')}",
            f"--service-account-signing-key-file={certificate('service-account.key')}",
            f"--requestheader-client-ca-file={certificate('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={certificate('front-proxy-client.crt')}",
            f"--proxy-client-key-file={certificate('front-proxy-client.key')}",
            "--profiling=false",
        ]

    def kube_controller_manager(self) -> list[str | Path]:
        kubeconfig = self._certificate("kube-controller-manager.kubeconfig")
        return [
            _program("kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--root-ca-file={self._certificate('ca.crt')}",
            f"--service-account-private-key-file={self._certificate('service-account.key')}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            f"--cluster-signing-cert-file={self._certificate('ca.crt')}",
            f"--cluster-signing-key-file={self._certificate('ca.key')}",
            f"--cluster-cidr={addresses.POD_NETWORK}",
            f"--service-cluster-ip-range={addresses.SERVICE_NETWORK}",
            "--allocate-node-cidrs=false",
        ]

    def kube_scheduler(self) -> list[str | Path]:
        kubeconfig = self._certificate("kube-scheduler.kubeconfig")
        return [
            _program("kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ]

    def kubelet(self) -> list[str | Path]:
        from harness.kubernetes.ground import CONTROL_GROUP

        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": addresses.NODE,
            "port": self.node.port,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self.node.health_port,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self._certificate("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self._certificate("kubelet-server.crt"),
            "tlsPrivateKeyFile": self._certificate("kubelet-server.key"),
            "rotateCertificates": False,
            "cgroupRoot": str(Path("/", CONTROL_GROUP, self.node.control_group)),
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": ["pods"],
            # Machines with version 1 of control groups are still about.
            "failCgroupV1": False,
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "resolvConf": str(self._file("resolv.conf", "nameserver 127.0.0.1\n")),
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            # Images are imported once, and could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "maxPods": 250,
            "volumeStatsAggPeriod": self.volumes_looked_at_every,
            "oomScoreAdj": 0,
        }
        if self.memory_wanted_free:
            # Not the hard limit, which is taken off what pods may ask for: those that are there would not be admitted again.
            configuration["evictionSoft"] = {"memory.available": self.memory_wanted_free}
            configuration["evictionSoftGracePeriod"] = {"memory.available": "1s"}
            configuration["evictionMaxPodGracePeriod"] = 1
        if self.node.taint:
            configuration["registerWithTaints"] = [{"key": self.node.taint, "effect": "NoSchedule"}]
        return [
            _program("kubelet"),
            f"--config={self._file('kubelet.json', json.dumps(configuration, indent=1))}",
            f"--kubeconfig={self._certificate(f'{self.kubelet_credentials}.kubeconfig')}",
            f"--hostname-override={self.node.name}",
            f"--node-ip={addresses.NODE}",
            f"--root-dir={self.folder}/kubelet",
            f"--cert-dir={self.folder}/kubelet/pki",
        ]

    def kube_proxy(self) -> list[str | Path]:
        configuration = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "bindAddress": addresses.NODE,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "clusterCIDR": addresses.POD_NETWORK,
            "hostnameOverride": addresses.NODE_NAME,
            "clientConnection": {"kubeconfig": self._certificate("kube-proxy.kubeconfig")},
            # These are the whole machine's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nodePortAddresses": [f"{addresses.NODE}/32"],
        }
        return [_program("kube-proxy"), f"--config={self._file('kube-proxy.json', json.dumps(configuration))}"]
