//! `wick token`: a new token, and what a server's file of tokens says of it.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::failure::Outcome;
use crate::output::{self, Format};
use crate::random;

/// Random bytes of a token: nobody guesses 256 bits.
const BYTES: usize = 32;

/// What tokens begin with, so that a scanner recognises one that leaked.
const PREFIX: &str = "wick_";

/// Make a token for clients of a server
///
/// Prints the token, which nothing keeps, and the entry for the file that `wick run --tokens`
/// reads. The entry has a hash of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick token camera --model filetype --model 'ocr-*'
  wick token operator --model '*' --control >> tokens.toml     the token goes to stderr")]
pub struct TokenArgs {
    /// Whose token it is, for errors and logs
    name: String,
    /// A model that it may call; `*` at the end stands for any rest
    #[arg(long, required = true, value_name = "MODEL", value_parser = model)]
    model: Vec<String>,
    /// It may load and unload these models, too
    #[arg(long)]
    control: bool,
}

pub fn run(args: &TokenArgs, format: Format) -> Outcome {
    let token = format!("{PREFIX}{}", hex(&random::bytes::<BYTES>()?));
    let hash = hex(&Sha256::digest(&token));
    let entry = entry(args, &hash);
    match format {
        Format::Json => output::json(&json!({
            "token": token,
            "name": args.name,
            "sha256": hash,
            "models": args.model,
            "control": args.control,
            "entry": entry,
        })),
        _ => {
            eprintln!("{token}");
            output::line(entry.trim_end());
        }
    }
    Ok(())
}

/// The entry, in TOML.
fn entry(args: &TokenArgs, hash: &str) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let models: Vec<_> = args.model.iter().map(|model| text(model)).collect();
    let control = if args.control { "control = true\n" } else { "" };
    format!(
        "\n[[token]]\nname = {}\nsha256 = \"{hash}\"\nmodels = [{}]\n{control}",
        text(&args.name),
        models.join(", ")
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A model's name, or its beginning and `*`.
fn model(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    if text.is_empty() || name.contains('*') {
        return Err("write a model's name; `*` is only possible at its end".to_owned());
    }
    Ok(text.to_owned())
}
