//! What packages are allowed: flags become [`Grants`]. A package gets only what it also
//! wants.

use std::path::PathBuf;

use wick_engine::Grants;
use wick_package::HostPort;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Flags that grant something.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Grants")]
pub struct GrantArgs {
    /// Let packages that want it connect to this host and port
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    grant_network: Vec<HostPort>,
    /// Let packages that want it see this environment variable, wick's own or this value
    #[arg(long, value_name = "NAME[=VALUE]")]
    grant_env: Vec<String>,
    /// Let packages that want it see this folder
    #[arg(long, value_name = "NAME=/PATH", value_parser = mount)]
    grant_mount: Vec<(String, PathBuf)>,
}

// === impl GrantArgs ===

impl GrantArgs {
    /// # Errors
    /// A variable is not set, or a folder is not there.
    pub fn grants(&self, env: impl Fn(&str) -> Option<String>) -> Outcome<Grants> {
        let mut grants = Grants { network: self.grant_network.clone(), ..Grants::default() };
        for text in &self.grant_env {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (text.as_str(), env(text).ok_or_else(|| unset(text))?),
            };
            grants.env.insert(name.to_owned(), value);
        }
        for (name, path) in &self.grant_mount {
            if !path.is_dir() {
                let text = format!("--grant-mount {name}: {} is not a folder", path.display());
                return Err(Failure::new(Exit::NotFound, "not-found", text));
            }
            grants.mounts.insert(name.clone(), path.clone());
        }
        Ok(grants)
    }
}

fn unset(name: &str) -> Failure {
    Failure::usage(format_args!("--grant-env {name}: the variable is not set"))
        .help(format!("set it, or write --grant-env {name}=VALUE"))
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let wrong = "write HOST:PORT, for instance api.example.com:443";
    let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| wrong)?;
    if host.is_empty() || port == 0 {
        return Err(wrong.to_owned());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

fn mount(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        _ => Err("write NAME=/PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(env: &[&str], mounts: &[&str]) -> GrantArgs {
        GrantArgs {
            grant_network: vec![],
            grant_env: env.iter().map(|&text| text.to_owned()).collect(),
            grant_mount: mounts.iter().map(|text| mount(text).unwrap()).collect(),
        }
    }

    #[test]
    fn destinations_have_a_host_and_a_port() {
        let to = |host: &str, port| Ok(HostPort { host: host.into(), port });
        assert_eq!(host_port("api.example.com:443"), to("api.example.com", 443));
        assert_eq!(host_port("[::1]:80"), to("::1", 80));
        for bad in ["", "host", "host:", ":80", "host:0", "host:70000"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_come_from_the_flag_or_from_the_environment() {
        let env = |name: &str| (name == "HOME").then(|| "/home/a".to_owned());
        let grants = args(&["HOME", "TOKEN=a=b"], &[]).grants(env).unwrap();
        assert_eq!(grants.env["HOME"], "/home/a");
        assert_eq!(grants.env["TOKEN"], "a=b");
        let failure = args(&["MISSING"], &[]).grants(env).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
    }

    #[test]
    fn mounts_are_folders_that_exist() {
        let none = |_: &str| None;
        let grants = args(&[], &["data=/"]).grants(none).unwrap();
        assert_eq!(grants.mounts["data"], PathBuf::from("/"));
        let failure = args(&[], &["data=/nothing/here"]).grants(none).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert!(mount("/data").is_err() && mount("=/data").is_err());
    }
}
