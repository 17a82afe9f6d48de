use std::fs;

use super::*;

const WIDE: Bounds = Bounds { files: 100, names: 10_000, depth: 3 };

/// A folder with empty files at these paths.
fn tree(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    folder
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.found.iter().map(|found| found.name.as_str()).collect()
}

#[test]
fn files_are_listed_in_order_however_deep_they_are() {
    let folder = tree(&["b", "a/c", "a/b/z", "c/.hidden"]);
    let listing = Listing::of(folder.path()).unwrap();
    assert_eq!(names(&listing), ["a/b/z", "a/c", "b", "c/.hidden"]);
    assert!(listing.found.iter().all(|found| found.refused.is_none()));
}

#[cfg(unix)]
#[test]
fn links_are_left_out_also_those_to_folders() {
    use std::os::unix::fs::symlink;

    let folder = tree(&["a/file"]);
    symlink("a/file", folder.path().join("link")).unwrap();
    symlink("..", folder.path().join("a/loop")).unwrap();
    let listing = Listing::of(folder.path()).unwrap();
    assert_eq!((names(&listing), listing.left_out), (vec!["a/file"], 2));
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf_8_is_refused_and_the_others_are_listed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let folder = tree(&["a", "b"]);
    fs::write(folder.path().join(OsStr::from_bytes(b"a\xff")), "").unwrap();
    let listing = Listing::of(folder.path()).unwrap();
    assert_eq!(names(&listing), [".", "a", "b"]);
    assert_eq!(listing.found[0].refused.as_deref(), Some("a name in this folder is not UTF-8"));
}

#[test]
fn folders_that_are_too_deep_are_refused_and_the_others_listed() {
    let folder = tree(&["1/2/3/file", "1/2/3/4/file"]);
    let listing = Listing::within(folder.path(), WIDE).unwrap();
    assert_eq!(names(&listing), ["1/2/3/4", "1/2/3/file"]);
    assert_eq!(listing.found[0].refused.as_deref(), Some("more than 3 folders inside each other"));
}

#[test]
fn more_than_a_job_takes_is_an_error() {
    let folder = tree(&["a", "b", "c"]);
    let listed = |bounds| Listing::within(folder.path(), bounds).map(|listing| listing.found.len());
    assert_eq!(listed(Bounds { files: 3, names: 3, ..WIDE }).unwrap(), 3);
    for bounds in [Bounds { files: 2, ..WIDE }, Bounds { names: 2, ..WIDE }] {
        assert!(matches!(listed(bounds), Err(JobError::TooMany { .. })));
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tree(&[]);
    let error = Listing::of(&folder.path().join("data")).unwrap_err();
    assert!(error.to_string().contains("--grant-mount data=DIR"), "{error}");
    assert!(Listing::of(folder.path()).unwrap().found.is_empty());
}
