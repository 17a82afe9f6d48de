//! Who a worker is after its lockdown, and what it may do.

use wick_sandbox::order::{Device, Rlimit, User};

use crate::support::{Case, root_or_skip};

#[test]
fn every_thread_has_no_capability_the_user_of_the_order_and_a_filter() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    for (user, who) in [
        (case.order.user.clone(), "Uid=1000,1000,1000,1000 Gid=2000,2000,2000,2000 Groups=3000"),
        (User::default(), "Uid=0,0,0,0 Gid=0,0,0,0 Groups="),
    ] {
        case.order.user = user;
        let answers = case.run(&["status"]);
        let none = "0000000000000000";
        let want = format!(
            "3 threads: {who} CapInh={none} CapPrm={none} CapEff={none} CapBnd={none} \
             CapAmb={none} NoNewPrivs=1 Seccomp=2 Seccomp_filters=2"
        );
        assert_eq!(answers.ok("status"), want);
    }
}

#[test]
fn nothing_leads_out_of_the_sandbox() {
    if !root_or_skip() {
        return;
    }
    let calls = [
        libc::SYS_ptrace,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_open_by_handle_at,
        libc::SYS_process_vm_readv,
        libc::SYS_seccomp,
        libc::SYS_setuid,
        libc::SYS_capset,
        libc::SYS_kill,
    ];
    let calls: Vec<_> = calls.iter().map(|number| format!("call:{number}")).collect();
    let unix = format!("call:{},{},{}", libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM);
    let netlink = format!("call:{},{},{}", libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW);
    let fork = format!("call:{},{}", libc::SYS_clone, libc::SIGCHLD);
    let clone3 = format!("call:{}", libc::SYS_clone3);
    let mut actions: Vec<_> = calls.iter().map(String::as_str).collect();
    actions.extend([&*unix, &netlink, &fork]);
    let mut case = Case::new();
    for user in [case.order.user.clone(), User::default()] {
        case.order.user = user;
        let more = [&*clone3, "exec:/proc/self/exe", "run:/proc/self/exe", "threads"];
        let answers = case.run(&[&*actions, &more].concat());
        for action in &actions {
            answers.error(action, &[libc::EPERM]);
        }
        answers.error(&clone3, &[libc::ENOSYS]);
        answers.error("exec:/proc/self/exe", &[libc::EPERM]);
        answers.error("run:/proc/self/exe", &[libc::EPERM]);
        answers.ok("threads");
    }
}

#[test]
fn drivers_are_asked_only_where_a_device_was_granted() {
    if !root_or_skip() {
        return;
    }
    let (ioctl, stream) = (libc::SYS_ioctl, 0);
    let [driver, terminal] =
        [0x1234, libc::TIOCSTI].map(|request| format!("call:{ioctl},{stream},{request}"));
    let mut case = Case::new();
    let device = |major, minor| Device {
        path: "/dev/accel/one".into(),
        kind: 'c',
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let disk = Device { kind: 'b', ..device(7, 0) };
    for devices in [vec![], vec![device(1, 3)], vec![disk]] {
        case.order.devices = devices;
        case.run(&[&driver]).error(&driver, &[libc::EPERM]);
    }
    case.order.devices = vec![device(10, 229)];
    let answers = case.run(&[&driver, &terminal]);
    // The stream has no such request: the call was made.
    answers.error(&driver, &[libc::ENOTTY, libc::EINVAL]);
    answers.error(&terminal, &[libc::EPERM]);
}

#[test]
fn it_may_listen_and_connects_only_with_the_network_granted() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let answers = case.run(&["listen:0.0.0.0:8080", "connect:127.0.0.1:9"]);
    assert_eq!(answers.ok("listen:0.0.0.0:8080"), "8080");
    answers.error("connect:127.0.0.1:9", &[libc::EPERM]);
    case.order.settings.network = vec!["example.com:443".into()];
    let answers = case.run(&["connect:127.0.0.1:9"]);
    // The namespace of the test has no network: the call was made.
    answers.error("connect:127.0.0.1:9", &[libc::ENETUNREACH, libc::ECONNREFUSED]);
}

#[test]
fn limits_the_mask_and_the_folder_are_those_of_the_order() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    case.order.rlimits = vec![Rlimit { name: "RLIMIT_NOFILE".into(), soft: 128, hard: 256 }];
    case.order.cwd = "/app/deep/er".into();
    let answers = case.run(&["limit:Max open files", "cwd", "descriptors"]);
    let limit: Vec<_> = answers.ok("limit:Max open files").split_whitespace().collect();
    assert_eq!(limit[3..5], ["128", "256"]);
    assert_eq!(answers.ok("cwd"), "/app/deep/er");
    // Its own three, where the channel is one, and the one that lists them.
    assert_eq!(answers.ok("descriptors").split(' ').count(), 4, "{}", answers.ok("descriptors"));

    case.order.rlimits[0].name = "RLIMIT_FUN".into();
    assert!(case.refusal().contains("the limit RLIMIT_FUN is refused"), "{}", case.refusal());
}

#[test]
fn a_profile_that_the_node_does_not_have_is_refused() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    case.order.apparmor = Some("wick-test-that-nobody-has-loaded".into());
    let refusal = case.refusal();
    assert!(refusal.contains("wick-test-that-nobody-has-loaded"), "{refusal}");
    case.order.apparmor = Some("unconfined".into());
    case.run(&[]).ok("lockdown");
}
