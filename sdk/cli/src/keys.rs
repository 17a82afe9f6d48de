//! Keys in files, and the passphrases that open them.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use wick_package::signature::{PrivateKey, PublicKey, SignatureError};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The variable with a passphrase, for machines.
const VARIABLE: &str = "WICK_KEY_PASSPHRASE";

/// Where a passphrase comes from.
#[derive(Debug, clap::Args)]
pub struct PassphraseArgs {
    /// A file whose first line is the key's passphrase; else WICK_KEY_PASSPHRASE, else you are
    /// asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

// === impl PassphraseArgs ===

impl PassphraseArgs {
    /// The passphrase that was given without asking.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn given(&self) -> Outcome<Option<Zeroizing<String>>> {
        let Some(path) = &self.passphrase_file else {
            let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
            return Ok(variable.map(Zeroizing::new));
        };
        let text = Zeroizing::new(read(path)?);
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            let text = format!("{} has no passphrase in its first line", path.display());
            return Err(Failure::new(Exit::BadData, "passphrase", text));
        }
        Ok(Some(Zeroizing::new(line.to_owned())))
    }

    /// Read a private key; whoever sits at a terminal is asked for what opens it.
    ///
    /// # Errors
    /// It can't be read or opened.
    pub fn private_key(&self, path: &Path) -> Outcome<PrivateKey> {
        let text = Zeroizing::new(read(path)?);
        let given = self.given()?;
        let key = match PrivateKey::from_pem(&text, given.as_ref().map(|text| text.as_str())) {
            Err(SignatureError::Encrypted) => {
                match ask(&format!("passphrase of {}: ", path.display()))? {
                    Some(asked) => PrivateKey::from_pem(&text, Some(&asked)),
                    None => Err(SignatureError::Encrypted),
                }
            }
            other => other,
        };
        key.map_err(|error| of(path, &error))
    }
}

/// Ask at the terminal, without showing what is typed; none where there is no terminal.
///
/// # Errors
/// The terminal is gone.
pub fn ask(prompt: &str) -> Outcome<Option<Zeroizing<String>>> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(None);
    }
    let terminal = console::Term::stderr();
    let typed = terminal.write_str(prompt).and_then(|()| terminal.read_secure_line());
    let typed =
        typed.map_err(|error| anyhow::Error::new(error).context("cannot read the terminal"))?;
    Ok(Some(Zeroizing::new(typed)))
}

/// Read a public key.
///
/// # Errors
/// It can't be read, or is none.
pub fn public_key(path: &Path) -> Outcome<PublicKey> {
    PublicKey::from_pem(&read(path)?).map_err(|error| of(path, &error))
}

/// Read the text of a file that the user has named.
///
/// # Errors
/// It can't be read.
pub fn read(path: &Path) -> Outcome<String> {
    let text = fs::read_to_string(path);
    Ok(text.map_err(|error| {
        anyhow::Error::new(error).context(format!("cannot read {}", path.display()))
    })?)
}

fn of(path: &Path, error: &SignatureError) -> Failure {
    Failure::of(error).about(path)
}
