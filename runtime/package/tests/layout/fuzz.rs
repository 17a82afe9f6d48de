//! Layouts with random damage: opened, refused, or read, but never a panic.

use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use tempfile::TempDir;
use wick_package::Package;
use wick_package::pack::Format;

use crate::support::*;

/// A packed layout with small files, so that damage often meets a header.
static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let scratch = Scratch::new();
    for (name, _) in FILES {
        fs::write(scratch.dir().join(name), name).unwrap();
    }
    let (out, _) = scratch.pack("out.tar", Format::Tar);
    fs::read(out).unwrap()
});

fn open_and_read(bytes: &[u8]) {
    let root = TempDir::new().unwrap();
    let path = root.path().join("layout.tar");
    fs::write(&path, bytes).unwrap();
    let Ok(package) = Package::open(&path) else { return };
    let _ = package.verify();
    for file in package.manifest().files() {
        let blob = package.file(file.path).unwrap();
        assert!(blob.offset + blob.len <= bytes.len() as u64);
        assert_eq!(blob.read(1 << 20).unwrap().len() as u64, blob.len);
    }
}

/// Make the checksum of a header right again, so that damage gets past it.
fn mend(bytes: &mut [u8], block: usize) {
    let Some(header) = bytes.get_mut(block * 512..block * 512 + 512) else { return };
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = PACKED.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        open_and_read(&bytes);
    }

    #[test]
    fn changed_headers_with_right_checksums_never_panic(
        block in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0usize..512, any::<u8>()), 1..24)
    ) {
        let mut bytes = PACKED.clone();
        let block = block.index(bytes.len() / 512);
        for (at, byte) in changes {
            bytes[block * 512 + at] = byte;
        }
        mend(&mut bytes, block);
        open_and_read(&bytes);
    }

    #[test]
    fn cut_and_joined_layouts_never_panic(
        start in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        aligned in any::<bool>()
    ) {
        let (mut start, mut end) = (start.index(PACKED.len()), end.index(PACKED.len()));
        if aligned {
            (start, end) = (start / 512 * 512, end / 512 * 512);
        }
        let (start, end) = (start.min(end), start.max(end));
        open_and_read(&PACKED[..start]);
        open_and_read(&[&PACKED[..start], &PACKED[end..]].concat());
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        open_and_read(&bytes);
    }
}
