"""What the services of a real node are told: containerd, its network plugins, kubelet, kube-proxy."""

from __future__ import annotations

from pathlib import Path

import node_network as network
from container_images import PAUSE
from pki import Pair

GRACE_S = 8
"""A node that is silent for so long is lost: short, as tests wait for it."""

CNI_PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")


def containerd(folder: Path, memory: str, socket: str) -> str:
    """Its configuration; images and containers are kept in `memory`, a tmpfs that goes with the node."""
    plugins = next((place for place in CNI_PLUGINS if Path(place, "bridge").exists()), CNI_PLUGINS[0])
    # A machine without CAP_SYS_RESOURCE may not lower oom_score_adj: hence restrict_oom_score_adj.
    return f"""version = 2
root = "{memory}/containerd"
state = "{memory}/state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
"""


def cni(number: int) -> dict[str, object]:
    """A bridge for the node's pods, with addresses of its own range."""
    addresses = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/addresses",
        "ranges": [[{"subnet": network.pod_range(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "test", "plugins": [{**bridge, "ipam": addresses}, ports]}


def kubelet(name: str, folder: Path, socket: str, ca: Path, serving: Pair) -> dict[str, object]:
    """Its configuration; its control groups are below one group of the node's own."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{name}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "resolvConf": "",
        "clusterDNS": [network.GATEWAY],
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{folder}/pods",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "nodeLeaseDurationSeconds": GRACE_S,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
        "volumePluginDir": f"{folder}/plugins",
    }


def kube_proxy(name: str, kubeconfig: Path) -> dict[str, object]:
    """Its configuration; it leaves the machine's connection tracking as it is."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": name,
        "clusterCIDR": "10.213.0.0/16",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
