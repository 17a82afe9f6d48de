//! `cargo xtask image`: the image that operator and activator run from, as the tar of an OCI
//! layout that `ctr images import`, `k3s ctr images import` and `skopeo copy` take.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use wick_e2e::distribution;

use crate::house::House;
use crate::tools;

/// What the chart names if it is told nothing.
pub const REPOSITORY: &str = "localhost/wick";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    output: Option<PathBuf>,
    name: Option<String>,
    /// An executable that exists, in the place of a release build.
    wick: Option<PathBuf>,
}

pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(args)?;
    let wick = match options.wick {
        Some(wick) => wick,
        None => release(house)?,
    };
    let name = options.name.unwrap_or_else(|| format!("{REPOSITORY}:{}", distribution::VERSION));
    let output = options.output.unwrap_or_else(|| house.target.join("wick-image.tar"));
    let built = distribution::image(&wick, &name)?.build()?;
    let archive = built.archive()?;
    tools::write_whole(&output, &archive)?;
    let mib = archive.len() as f64 / f64::from(1 << 20);
    println!("{name} in {} ({mib:.0} MiB)", output.display());
    Ok(())
}

/// `wick` as it ships.
fn release(house: &House) -> anyhow::Result<PathBuf> {
    tools::run(house.cargo().args(["build", "--release", "-p", "wick-cli"]))?;
    Ok(house.target.join("release/wick"))
}

// === impl Options ===

impl Options {
    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next().cloned().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "-o" | "--output" => options.output = Some(value?.into()),
                "--name" => options.name = Some(value?),
                "--wick" => options.wick = Some(value?.into()),
                other => {
                    bail!("`image` has no flag {other}: -o FILE, --name REFERENCE, --wick FILE")
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() -> anyhow::Result<()> {
        let parse = |line: &str| {
            Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(parse("")?, Options::default());
        let options = parse("-o a.tar --name x/wick:1 --wick target/debug/wick")?;
        assert_eq!(options.output, Some(PathBuf::from("a.tar")));
        assert_eq!(options.name.as_deref(), Some("x/wick:1"));
        assert_eq!(options.wick, Some(PathBuf::from("target/debug/wick")));
        assert!(parse("--name").is_err() && parse("--fast").is_err() && parse("x y").is_err());
        Ok(())
    }
}
