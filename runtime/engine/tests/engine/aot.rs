//! Compiled components on disk: kept, found again, refused when they can't be trusted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wick_engine::{Engine, EngineSettings};

use crate::support::{Folder, alone, ask, good, guest, nn, request, settings};

/// A cache folder below a temporary one, which the engine makes.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
    }

    fn code(&self) -> PathBuf {
        self.files("cwasm").remove(0)
    }
}

/// A new engine with this cache loads the guest and answers.
async fn works(cache: &Path) {
    let settings = EngineSettings { cache: Some(cache.to_owned()), ..settings() };
    let engine = Engine::new(settings, nn()).unwrap();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    good(ask(&model, request("good")).await);
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let place = Place::new();
    works(&place.path()).await;
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let code = place.code();
    let written = inode(&code);
    works(&place.path()).await;
    assert_eq!((place.files("cwasm").len(), place.files("ref").len()), (1, 1));
    assert_eq!(inode(&code), written, "the second start compiled again");
}

#[tokio::test]
async fn a_damaged_entry_is_refused_and_replaced() {
    let place = Place::new();
    works(&place.path()).await;
    let (code, reference) = (place.code(), place.files("ref").remove(0));
    let good = fs::read(&code).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let middle = flipped(good.len() / 2);
    let damages = [&middle[..], &flipped(0), &good[..good.len() / 2], &good[..0], b"garbage"];
    for damage in damages {
        fs::write(&code, damage).unwrap();
        works(&place.path()).await;
        assert!(fs::read(&code).unwrap() == good, "{} bytes were kept", damage.len());
    }
    for damage in [&b""[..], b"garbage", b"sha256:00", &[0xff; 100_000]] {
        fs::write(&reference, damage).unwrap();
        works(&place.path()).await;
        assert_ne!(fs::read(&reference).unwrap(), damage);
    }
    fs::remove_file(&code).unwrap();
    works(&place.path()).await;
    assert!(code.exists());
}

#[tokio::test]
async fn an_entry_that_others_could_have_written_is_replaced() {
    let place = Place::new();
    works(&place.path()).await;
    let code = place.code();
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&code, Permissions::from_mode(mode)).unwrap();
        works(&place.path()).await;
        assert_eq!(fs::metadata(&code).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A link to a good file elsewhere is not followed.
    let elsewhere = place.0.path().join("elsewhere");
    fs::rename(&code, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &code).unwrap();
    works(&place.path()).await;
    assert!(fs::symlink_metadata(&code).unwrap().is_file());
}

#[tokio::test]
async fn a_folder_that_others_can_write_is_not_used() {
    let place = Place::new();
    works(&place.path()).await;
    let code = place.code();
    fs::remove_file(&code).unwrap();
    for mode in [0o770, 0o707, 0o777] {
        fs::set_permissions(place.path(), Permissions::from_mode(mode)).unwrap();
        works(&place.path()).await;
        assert!(!code.exists(), "the folder of mode {mode:o} was used");
    }
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_not_used() {
    // Only root can give files away. Others have a folder of root's to try.
    if !rustix::process::geteuid().is_root() {
        return works(Path::new("/usr")).await;
    }
    let place = Place::new();
    works(&place.path()).await;
    let code = place.code();
    chown(&code, Some(12345), None).unwrap();
    works(&place.path()).await;
    assert_eq!(fs::metadata(&code).unwrap().uid(), 0, "the entry was not replaced");
    fs::remove_file(&code).unwrap();
    chown(place.path(), Some(12345), None).unwrap();
    works(&place.path()).await;
    assert!(!code.exists(), "the folder was used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_at_the_same_time_share_the_folder() {
    let place = Place::new();
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let path = place.path();
        starts.spawn(async move { works(&path).await });
    }
    while let Some(start) = starts.join_next().await {
        start.unwrap();
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "temporary files are left");
}

#[tokio::test]
async fn without_a_usable_folder_every_start_compiles() {
    let place = Place::new();
    let file = place.0.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/self/nothing")] {
        works(&path).await;
    }
}

/// Files end at 300 KiB, which the compiled guest exceeds, and the guest does not.
const SMALL_DISK: &str = r#"trap "" XFSZ; ulimit -f 600;"#;

#[tokio::test]
async fn a_full_disk_is_no_error() {
    if !alone("aot::a_full_disk_is_no_error", SMALL_DISK) {
        return;
    }
    let place = Place::new();
    works(&place.path()).await;
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "half a file was left");
    // The limit was met: a file of that size can't be written.
    let large = vec![0; 301 << 10];
    assert!(fs::write(place.0.path().join("large"), large).is_err());
}

#[tokio::test]
async fn little_address_space_is_no_error() {
    // Less than one memory's reservation, and than any pool.
    if !alone("aot::little_address_space_is_no_error", "ulimit -v 3000000;") {
        return;
    }
    let place = Place::new();
    works(&place.path()).await;
    works(&place.path()).await;
}
