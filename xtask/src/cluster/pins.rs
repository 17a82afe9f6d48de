//! The versions of everything that a cluster is made of, in one place. Changing one builds
//! it anew into a folder of its own, so clusters of both versions can run.

/// Kubernetes, etcd included. The version itself is pinned in `e2e/cluster/kube/go.mod`;
/// this is what the programs say they are, and a test compares the two.
pub const KUBERNETES: &str = "1.35.4";

/// containerd, unless `--containerd` names another.
pub const CONTAINERD: &str = "2.3.7";

/// Every line of containerd that is supported, for `e2e shim --matrix`.
pub const CONTAINERD_MATRIX: [&str; 4] = ["1.7.35", "2.1.9", CONTAINERD, "2.4.2"];

/// runc of the 1.3 line, which the containerd above is tested with by its authors.
pub const RUNC: &str = "1.3.3";

/// The newest CoreDNS that uses the client library of Kubernetes 1.35.
pub const COREDNS: &str = "1.14.7";

/// Debian packages that are unpacked beside the binaries and never installed: the registry
/// would start as a service, and neither is wanted outside a cluster.
pub const UNPACKED: [(&str, &str); 2] = [
    ("docker-registry", "usr/bin/docker-registry"),
    ("containernetworking-plugins", "usr/lib/cni/ptp"),
];

/// What must be installed, by a file that shows that it is, and its Debian package.
/// Commands are looked up on PATH, headers by path.
pub const INSTALLED: [(&str, &str); 6] = [
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("pkg-config", "pkg-config"),
    ("/usr/include/seccomp.h", "libseccomp-dev"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
];
