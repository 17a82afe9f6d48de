//! The cable between the machine and a cluster: a pair of interfaces, one end on the host,
//! the other in the cluster's network namespace, and routes to its pods and Services. Both
//! ends go when the namespace goes. Nothing else of the machine's network is touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::instance::{Index, MAX_INDEX, Name};
use crate::tools;

/// The cluster's end.
const INSIDE: &str = "eth0";

/// Make the pair, and thereby take the lowest free index: an interface's name is taken by
/// one process only, and it is free again when its cluster is gone, however that came.
pub fn reserve(name: &Name) -> anyhow::Result<Index> {
    for number in 0..=MAX_INDEX {
        let index = Index::new(number)?;
        let interface = index.interface();
        let mut add = Command::new("ip");
        add.args(["link", "add", &interface, "type", "veth", "peer", "name", &peer(index)]);
        match tools::output(&mut add) {
            // The alias at once: `down` finds the pair by it, whatever happens next.
            Ok(_) => {
                return ip(&["link", "set", &interface, "alias", &name.alias()]).map(|()| index);
            }
            Err(_) if Path::new("/sys/class/net").join(&interface).exists() => {}
            Err(error) => return Err(error).context("make a pair of interfaces"),
        }
    }
    bail!("all {} indexes are taken: stop a cluster (cargo xtask cluster status)", MAX_INDEX + 1)
}

/// Move one end into the network namespace of the process `inside`, and give both their
/// addresses and routes.
pub fn connect(index: Index, inside: i32) -> anyhow::Result<()> {
    let inside = inside.to_string();
    ip(&["link", "set", &peer(index), "netns", &inside, "name", INSIDE])?;
    let ip_inside = |args: &[&str]| {
        let mut enter = Command::new("nsenter");
        enter.args(["--net", "--target", &inside, "ip"]).args(args);
        tools::output(&mut enter).map(drop)
    };
    ip_inside(&["link", "set", "lo", "up"])?;
    ip_inside(&["addr", "add", &format!("{}/24", index.node_ip()), "dev", INSIDE])?;
    ip_inside(&["link", "set", INSIDE, "up"])?;
    // The kubelet wants a default route; the host does not forward what comes by it.
    ip_inside(&["route", "add", "default", "via", &index.host_ip()])?;
    let interface = index.interface();
    ip(&["addr", "add", &format!("{}/24", index.host_ip()), "dev", &interface])?;
    ip(&["link", "set", &interface, "up"])?;
    for cidr in [index.pod_cidr(), index.service_cidr()] {
        ip(&["route", "add", &cidr, "via", &index.node_ip(), "dev", &interface])?;
    }
    Ok(())
}

/// The cluster's end while it is still outside.
fn peer(index: Index) -> String {
    format!("{}p", index.interface())
}

/// Interfaces of the host that belong to this cluster.
pub fn interfaces(name: &Name) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/class/net").context("list the interfaces")? {
        let entry = entry?;
        // It may go while it is looked at.
        let alias = fs::read_to_string(entry.path().join("ifalias")).unwrap_or_default();
        if alias.trim_end() == name.alias() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Remove interfaces that outlived their cluster.
pub fn remove(name: &Name) -> anyhow::Result<()> {
    for interface in interfaces(name)? {
        let removed = ip(&["link", "delete", &interface]);
        // The kernel may have been faster.
        if interfaces(name)?.contains(&interface) {
            removed?;
        }
    }
    Ok(())
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    tools::output(Command::new("ip").args(args)).map(drop)
}
