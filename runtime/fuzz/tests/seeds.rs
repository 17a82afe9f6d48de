//! Replays the seeds of all targets, and the crashes that were found, which are kept among them.

use std::fs;
use std::path::Path;

use wick_fuzz::TARGETS;

#[test]
fn seeds_and_found_crashes_break_no_rule() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for target in TARGETS {
        let files = fs::read_dir(seeds.join(target.name)).unwrap();
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            // What fails is named by the last line.
            println!("{}", path.display());
            (target.check)(&bytes);
            count += 1;
        }
        assert!(count > 0, "{} has no seeds", target.name);
    }
}

#[test]
fn each_folder_of_seeds_is_a_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for folder in fs::read_dir(seeds).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(wick_fuzz::target(&name).is_some(), "{name} is no target");
    }
}
