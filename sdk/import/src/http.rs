//! One file of a web server. Weights beside it are fetched from beside it.

use std::collections::BTreeMap;

use reqwest::{Client, Url};
use wick_package::RelPath;

use crate::error::ImportError;
use crate::remote::{Remote, shown};
use crate::tree::{Opened, RemoteTree, Tree};

/// Open a URL. Nothing is asked of the server yet.
pub(crate) fn open(url: &Url, client: &Client) -> Result<Opened, ImportError> {
    let place = shown(url);
    let client = client.clone();
    let remote = Remote::Http { client, url: url.clone(), authorization: None };
    let name: Result<RelPath, _> = remote.name().parse();
    let name =
        name.map_err(|error| ImportError::Source { text: place.clone(), why: error.to_string() })?;
    let mut words: Vec<String> =
        url.path_segments().into_iter().flatten().map(str::to_owned).collect();
    words.reverse();
    let files = BTreeMap::from([(name, (remote, None))]);
    let tree = RemoteTree { place: place.clone(), files, has_siblings: true };
    let mut opened = Opened::new(Tree::Remote(tree), place);
    opened.words = words;
    Ok(opened)
}
