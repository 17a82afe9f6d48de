use std::sync::Arc;
use std::thread;

use super::*;

struct Folder {
    root: TempDir,
    cache: GraphCache,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = GraphCache::open(&root.path().join("graphs")).unwrap();
        Self { root, cache }
    }

    fn store(&self, key: &Key, content: &str) -> io::Result<PathBuf> {
        self.cache.store(key, |folder| {
            fs::write(folder.join("model"), content)?;
            fs::write(folder.join("weights"), "w")
        })
    }

    /// Entries and leftovers, without the notes on digests.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.cache.folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "digests").collect()
    }

    fn model(&self, content: &str) -> GraphSource {
        let path = self.root.path().join("model.onnx");
        fs::write(&path, content).unwrap();
        let len = content.len() as u64;
        let bytes = SourceBytes::File { path, offset: 0, len, digest: None };
        GraphSource { name: "g".parse().unwrap(), bytes }
    }
}

fn key() -> Key {
    Key::of(&["a", "b"])
}

#[test]
fn facts_are_kept_apart_in_a_key() {
    assert_ne!(Key::of(&["ab", ""]), Key::of(&["a", "b"]));
    assert_ne!(Key::of(&["a"]), Key::of(&["a", ""]));
    assert_eq!(Key::of(&["a", "b"]), key());
}

#[test]
fn an_entry_is_found_after_it_was_stored() {
    let folder = Folder::new();
    assert_eq!(folder.cache.find(&key()), None);
    let entry = folder.store(&key(), "m").unwrap();
    assert_eq!(folder.cache.find(&key()), Some(entry.clone()));
    assert_eq!(fs::read_to_string(entry.join("model")).unwrap(), "m");
    assert_eq!(folder.names().len(), 1, "nothing unfinished is left");
}

#[test]
fn damage_of_any_kind_is_noticed_and_the_entry_removed() {
    let folder = Folder::new();
    let damages: [fn(&Path); 6] = [
        |entry| fs::remove_file(entry.join("weights")).unwrap(),
        |entry| fs::write(entry.join("model"), "").unwrap(),
        // Of the same size, so only the times and the digest tell.
        |entry| fs::write(entry.join("model"), "x").unwrap(),
        |entry| fs::write(entry.join("entry.json"), "{").unwrap(),
        |entry| fs::write(entry.join("entry.json"), r#"{"files":[]}"#).unwrap(),
        |entry| fs::remove_file(entry.join("entry.json")).unwrap(),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let entry = folder.store(&key(), "m").unwrap();
        damage(&entry);
        assert_eq!(folder.cache.find(&key()), None, "damage {index}");
        assert!(folder.names().is_empty(), "damage {index}");
    }
}

#[test]
fn an_entry_that_was_copied_is_still_good() {
    let folder = Folder::new();
    let entry = folder.store(&key(), "m").unwrap();
    let copy = folder.root.path().join("copy");
    fs::copy(entry.join("model"), &copy).unwrap();
    fs::rename(&copy, entry.join("model")).unwrap();
    assert!(folder.cache.find(&key()).is_some());
}

#[test]
fn of_many_writers_all_get_an_entry_and_one_is_kept() {
    let folder = Arc::new(Folder::new());
    let writers = (0..8).map(|_| {
        let folder = Arc::clone(&folder);
        thread::spawn(move || folder.store(&key(), "m").unwrap())
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(Some(writer.join().unwrap()), folder.cache.find(&key()));
    }
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn a_writer_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let failed = folder.cache.store(&key(), |_| Err(io::Error::other("full")));
    assert_eq!(failed.unwrap_err().to_string(), "full");
    assert!(folder.names().is_empty());
}

#[test]
fn the_oldest_entries_go_when_there_are_too_many() {
    let folder = Folder::new();
    for index in 0..MAX_ENTRIES + 3 {
        folder.store(&Key::of(&[&index.to_string()]), "m").unwrap();
    }
    assert_eq!(folder.names().len(), MAX_ENTRIES);
    assert!(folder.cache.find(&Key::of(&["0"])).is_none());
    assert!(folder.cache.find(&Key::of(&[&(MAX_ENTRIES + 2).to_string()])).is_some());
}

#[test]
fn an_unchanged_file_is_read_once() {
    let folder = Folder::new();
    let source = folder.model("content");
    thread::sleep(Duration::from_millis(150));
    let first = folder.cache.digest(&source).unwrap();
    assert_eq!((first.digest, first.bytes.is_some()), (Digest::of(b"content"), true));
    let second = folder.cache.digest(&source).unwrap();
    assert_eq!((second.digest, second.bytes.is_some()), (Digest::of(b"content"), false));
}

#[test]
fn a_replaced_file_is_read_again_even_with_the_same_size() {
    let folder = Folder::new();
    let source = folder.model("content");
    thread::sleep(Duration::from_millis(150));
    folder.cache.digest(&source).unwrap();
    folder.model("CONTENT");
    assert_eq!(folder.cache.digest(&source).unwrap().digest, Digest::of(b"CONTENT"));
}

#[test]
fn a_file_that_was_just_written_is_not_noted() {
    let folder = Folder::new();
    let source = folder.model("content");
    for _ in 0..2 {
        assert!(folder.cache.digest(&source).unwrap().bytes.is_some());
    }
}

#[test]
fn a_file_that_is_not_what_was_recorded_is_refused() {
    let folder = Folder::new();
    let mut source = folder.model("content");
    let want = |source: &mut GraphSource, text: &[u8]| {
        let SourceBytes::File { digest, .. } = &mut source.bytes else { unreachable!() };
        *digest = Some(Digest::of(text));
    };
    want(&mut source, b"other");
    let read = folder.cache.digest(&source).err().unwrap();
    assert!(matches!(read, LoadError::Io { .. }), "{read}");
    want(&mut source, b"content");
    thread::sleep(Duration::from_millis(150));
    folder.cache.digest(&source).unwrap();
    // Now there is a note, and the file is not read.
    want(&mut source, b"other");
    let error = folder.cache.digest(&source).err().unwrap();
    assert!(error.to_string().contains("recorded"), "{error}");
}

#[test]
fn a_folder_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let path = &folder.cache.folder;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(GraphCache::open(path).is_err());
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(GraphCache::open(path).is_ok());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let folder = Folder::new();
    let file = folder.root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(GraphCache::open(&file.join("graphs")).is_err());
}
