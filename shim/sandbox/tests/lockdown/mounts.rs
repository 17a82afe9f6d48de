//! What a worker sees of the file systems.

use std::fs;
use std::path::Path;

use wick_sandbox::order::{Device, Task};

use crate::support::{Case, kernel, root_or_skip};

#[test]
fn the_image_can_be_read_and_not_written() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    for uid in [0, 1000] {
        case.order.user.uid = uid;
        let answers = case.run(&[
            "read:/app/file",
            "write:/app/file",
            "write:/app/new",
            "mkdir:/new",
            "write:/run/wick/new",
            "read:/run/wick/image/app/file",
            "write:/run/wick/image/app/file",
            "list:/run/wick/image/proc",
        ]);
        assert_eq!(answers.ok("read:/app/file"), "of the image");
        let refused = [libc::EROFS, libc::EACCES];
        answers.error("write:/app/file", &refused);
        answers.error("write:/app/new", &refused);
        answers.error("mkdir:/new", &refused);
        assert_eq!(answers.ok("read:/run/wick/image/app/file"), "of the image");
        answers.error("write:/run/wick/image/app/file", &refused);
        assert_eq!(answers.ok("list:/run/wick/image/proc"), "");
        answers.error("write:/run/wick/new", &refused);
    }
    assert_eq!(fs::read_to_string(case.rootfs("app/file")).unwrap(), "of the image");
}

#[test]
fn nothing_of_the_node_is_to_be_seen() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    case.order.user.uid = 0;
    let secret = case.folder.path().join("secret");
    fs::write(&secret, "of the node").unwrap();
    let read = format!("read:{}", secret.display());
    let up = format!("read:/../../../../..{}", secret.display());
    let answers = case.run(&[
        &read,
        &up,
        "list:/",
        "list:/proc/1/root",
        "read:/proc/self/mountinfo",
        "write:/proc/sys/kernel/core_pattern",
        "write:/proc/self/oom_score_adj",
        "write:/sys/kernel/profiling",
        "read:/proc/self/cgroup",
    ]);
    answers.error(&read, &[libc::ENOENT]);
    answers.error(&up, &[libc::ENOENT]);
    assert_eq!(answers.ok("list:/"), "app dev proc run sys");
    let mounts = answers.ok("read:/proc/self/mountinfo").split("; ");
    let mut places: Vec<_> = mounts.map(|line| line.split(' ').nth(4).unwrap()).collect();
    places.retain(|place| !place.starts_with("/sys/fs/cgroup/"));
    places.sort_unstable();
    let want = [
        "/",
        "/dev",
        "/dev/mqueue",
        "/dev/pts",
        "/proc",
        "/run/wick",
        "/run/wick/image",
        "/sys",
        "/sys/fs/cgroup",
    ];
    assert_eq!(places, want);
    answers.error("write:/proc/sys/kernel/core_pattern", &[libc::EROFS, libc::EACCES]);
    answers.error("write:/proc/self/oom_score_adj", &[libc::EROFS]);
    answers.error("write:/sys/kernel/profiling", &[libc::EROFS, libc::EACCES]);
    let groups = answers.ok("read:/proc/self/cgroup");
    assert!(groups.split("; ").all(|line| line.ends_with(":/")), "{groups}");
}

#[test]
fn volumes_are_mounted_as_they_are_asked_for() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let (one, two) = (case.volume("one"), case.volume("two"));
    case.bind(&one, "/data/deep/one", 0);
    case.bind(&two, "/data/two", libc::MS_RDONLY);
    case.bind(&two.join("inside"), "/etc/file", libc::MS_RDONLY);
    let answers = case.run(&[
        "write:/data/deep/one/new",
        "read:/data/two/inside",
        "write:/data/two/new",
        "read:/etc/file",
        "read:/proc/self/mountinfo",
    ]);
    answers.ok("write:/data/deep/one/new");
    assert!(one.join("new").exists());
    assert_eq!(answers.ok("read:/data/two/inside"), "of two");
    answers.error("write:/data/two/new", &[libc::EROFS]);
    assert_eq!(answers.ok("read:/etc/file"), "of two");
    for line in answers.ok("read:/proc/self/mountinfo").split("; ") {
        let mut fields = line.split(' ').skip(4);
        let (place, options) = (fields.next().unwrap(), fields.next().unwrap());
        let has = |option: &str| options.split(',').any(|one| one == option);
        assert!(has("nosuid"), "{line}");
        assert!(has("nodev") || place == "/dev" || place == "/dev/pts", "{line}");
        assert!(has("noexec"), "{line}");
        // Nothing that happens here reaches the node.
        assert!(!line.contains("shared:"), "{line}");
    }
}

#[test]
fn hidden_paths_are_empty_and_protected_ones_can_not_be_written() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let volume = case.volume("one");
    fs::create_dir(volume.join("kept")).unwrap();
    case.bind(&volume, "/data", 0);
    case.order.user.uid = 0;
    case.order.masked_paths =
        ["/proc/meminfo", "/sys/firmware", "/app", "/data/inside", "/nothing"]
            .map(Into::into)
            .into();
    case.order.readonly_paths = ["/proc/sys", "/data/kept", "/none"].map(Into::into).into();
    let answers = case.run(&[
        "read:/proc/meminfo",
        "list:/app",
        "read:/data/inside",
        "write:/data/new",
        "write:/data/kept/new",
    ]);
    assert_eq!(answers.ok("read:/proc/meminfo"), "");
    assert_eq!(answers.ok("list:/app"), "");
    assert_eq!(answers.ok("read:/data/inside"), "");
    answers.ok("write:/data/new");
    answers.error("write:/data/kept/new", &[libc::EROFS]);
}

#[test]
fn devices_are_the_usual_ones_and_those_that_are_granted() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let device = |path: &str, kind, major, minor| Device {
        path: path.into(),
        kind,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    case.order.devices = vec![device("/dev/accel/zero0", 'c', 1, 5)];
    let answers = case.run(&[
        "list:/dev",
        "read:/dev/null",
        "read:/dev/accel/zero0",
        "write:/dev/null",
        "read:/dev/full",
    ]);
    let want = "accel fd full mqueue null pts random stderr stdin stdout tty urandom zero";
    assert_eq!(answers.ok("list:/dev"), want);
    assert_eq!(answers.ok("read:/dev/null"), "");
    assert!(answers.ok("read:/dev/accel/zero0").starts_with('\0'));
    answers.ok("write:/dev/null");

    let refused = [
        (device("/opt/zero", 'c', 1, 5), "/opt/zero is refused: devices are made below /dev"),
        (device("/dev/x", 'z', 1, 5), "`z` is no kind of device"),
    ];
    for (device, want) in refused {
        case.order.devices = vec![device];
        let refusal = case.refusal();
        assert!(refusal.contains(want), "{refusal}");
    }
}

#[test]
fn without_dev_and_proc_in_the_order_the_image_s_are_not_used() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    fs::create_dir(case.rootfs("dev")).unwrap();
    fs::write(case.rootfs("dev/null"), "of the image").unwrap();
    case.order.mounts.clear();
    let answers = case.run(&["read:/dev/null", "read:/proc/self/cgroup"]);
    assert_eq!(answers.ok("read:/dev/null"), "");
    answers.ok("read:/proc/self/cgroup");
}

#[test]
fn backends_and_cache_have_their_places() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    case.order.backends = Some(case.volume("backends"));
    case.order.cache = Some(case.volume("cache"));
    let actions = [
        "read:/run/wick/backends/inside",
        "write:/run/wick/cache/new",
        "read:/run/wick/drivers/0-one.json",
        "write:/run/wick/drivers/0-one.json",
    ];
    let answers = case.run(&actions);
    assert_eq!(answers.ok(actions[0]), "of backends");
    answers.error(actions[1], &[libc::EROFS]);
    assert_eq!(answers.ok(actions[2]), "of a driver");
    answers.error(actions[3], &[libc::EROFS, libc::EACCES]);
    case.order.task = Task::Compile;
    let answers = case.run(&actions);
    answers.ok(actions[1]);
}

#[test]
fn code_is_mapped_only_from_what_is_the_node_s() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let (backends, cache) = (case.volume("backends"), case.volume("cache"));
    for folder in ["components", "graphs"] {
        fs::create_dir(cache.join(folder)).unwrap();
        fs::write(cache.join(folder).join("file"), "bytes").unwrap();
    }
    fs::write(case.rootfs("file"), "bytes").unwrap();
    (case.order.backends, case.order.cache) = (Some(backends), Some(cache));
    let may = ["code:/run/wick/backends/inside", "code:/run/wick/cache/components/file"];
    let may_not = ["code:/run/wick/cache/graphs/file", "code:/file", "code:/run/wick/image/file"];
    let answers =
        case.run(&[may.as_slice(), &may_not, &["write:/run/wick/cache/components/new"]].concat());
    for action in may {
        answers.ok(action);
    }
    for action in may_not {
        answers.error(action, &[libc::EPERM, libc::EACCES]);
    }
    answers.error("write:/run/wick/cache/components/new", &[libc::EROFS]);
}

#[test]
fn what_can_not_be_honoured_is_refused_by_name() {
    if !root_or_skip() {
        return;
    }
    let refusal = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::new();
        change(&mut case);
        case.refusal()
    };
    let nfs = refusal(&|case| case.order.mounts.push(kernel("nfs", "/data", "")));
    assert!(nfs.contains("/data is refused") && nfs.contains("`nfs`"), "{nfs}");
    let gone = refusal(&|case| {
        case.bind(Path::new("/nothing/here"), "/data", 0);
    });
    assert!(gone.contains("bind /nothing/here"), "{gone}");
    let kind = refusal(&|case| {
        let volume = case.volume("one");
        case.bind(&volume, "/app/file", 0);
    });
    assert!(kind.contains("the image has a file there"), "{kind}");
    let rootfs = refusal(&|case| case.order.rootfs = "/nothing/here".into());
    assert!(rootfs.contains("/nothing/here"), "{rootfs}");
}

/// A volume with a link to the image's root, and a file of the pod's that is mounted through it.
fn through_a_link(case: &mut Case, link: &str, destination: &str) {
    let (data, evil) = (case.volume("data"), case.volume("evil"));
    std::os::unix::fs::symlink(link, data.join("l")).unwrap();
    case.bind(&data, "/data", 0);
    case.bind(&evil.join("inside"), destination, libc::MS_RDONLY);
}

#[test]
fn nothing_is_mounted_through_a_volume_s_link_over_a_signed_file() {
    if !root_or_skip() {
        return;
    }
    let ways = [
        ("/", "/data/l/app/file"),
        ("/app", "/data/l/file"),
        ("/app/file", "/data/l"),
        ("..", "/data/l/app/file"),
        // A link to nothing yet.
        ("/app/new", "/data/l"),
        ("/run/wick/image", "/data/l/app/file"),
    ];
    for (link, destination) in ways {
        let mut case = Case::new();
        case.order.sealed = true;
        through_a_link(&mut case, link, destination);
        let refusal = case.refusal();
        assert!(refusal.starts_with("sandbox-refused"), "{destination}: {refusal}");
        assert!(refusal.contains("a volume has a link"), "{destination}: {refusal}");
        assert!(!case.rootfs("app/new").exists());
    }
    // Without a signature it is the pod's own affair, as for any container.
    let mut case = Case::new();
    through_a_link(&mut case, "/", "/data/l/app/file");
    let answers = case.run(&["read:/app/file", "read:/run/wick/image/app/file"]);
    assert_eq!(answers.ok("read:/app/file"), "of evil");
    assert_eq!(answers.ok("read:/run/wick/image/app/file"), "of the image");
}

#[test]
fn a_signed_image_has_its_volumes_beside_its_files() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    case.order.sealed = true;
    case.order.cwd = "/work".into();
    let (one, two) = (case.volume("one"), case.volume("two"));
    std::os::unix::fs::symlink("inside", one.join("l")).unwrap();
    case.bind(&one, "/data/deep/one", 0);
    case.bind(&two, "/data/deep/one/two", libc::MS_RDONLY);
    case.bind(&two.join("inside"), "/var/run/secrets/token", libc::MS_RDONLY);
    let files = ["/app/file", "/run/wick/image/app/file", "/data/deep/one/l"];
    let files = files.into_iter().chain(["/data/deep/one/two/inside", "/var/run/secrets/token"]);
    let actions: Vec<_> = files.map(|file| format!("read:{file}")).collect();
    let answers = case.run(&actions.iter().map(String::as_str).collect::<Vec<_>>());
    let want = ["of the image", "of the image", "of one", "of two", "of two"];
    for (action, want) in actions.iter().zip(want) {
        assert_eq!(answers.ok(action), want);
    }
    // Whoever else has the volume could put another folder in the place of the worker's own.
    case.bind(&one, "/run", 0);
    assert!(case.refusal().contains("/run is refused"));
}
