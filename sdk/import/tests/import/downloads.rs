//! Files of a web server that has faults.

use std::fs;

use wick_package::Digest;
use wick_testing::onnx;

use crate::support::{Bench, Reply, Server, model};

/// A model of some hundred kilobytes.
fn large() -> Vec<u8> {
    onnx::dense(256, 2)
}

#[test]
fn a_file_is_fetched_and_named_by_its_address() {
    let mut bench = Bench::new();
    let bytes = large();
    let server = Server::of(bytes.clone());
    bench.settings.sha256 = Some(Digest::of(&bytes));
    let (imported, package) = bench.import(server.url("acme/Tiny/resolve/main/onnx/model.onnx"));
    assert_eq!(imported.name.as_str(), "tiny");
    assert_eq!(model(&package), bytes);
    assert_eq!(bench.progress.last().unwrap(), &("model.onnx".to_owned(), bytes.len() as u64));
}

#[test]
fn weights_beside_the_file_are_fetched_from_beside_it() {
    let mut bench = Bench::new();
    let server = Server::start(|_, request| match request.path.as_str() {
        "/m/net.onnx" => Reply::file(&onnx::external_data("w/data.bin"), "\"a\"", request),
        "/m/w/data.bin" => Reply::file(&[0; 16], "\"b\"", request),
        _ => Reply::status(404),
    });
    let (imported, package) = bench.import(server.url("m/net.onnx"));
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    assert!(model(&package).len() > 16);
}

#[test]
fn nothing_is_fetched_for_a_place_that_a_package_can_not_take() {
    let mut bench = Bench::new();
    let server = Server::of(large());
    fs::create_dir(bench.path("folder")).unwrap();
    std::os::unix::fs::symlink("folder", bench.path("link")).unwrap();
    let link = bench.path("link");
    for out in [link.clone(), link.join(""), "/proc".into()] {
        bench.settings.out = Some(out);
        bench.refuse(server.url("net.onnx"), "exists");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_connection_that_is_cut_goes_on_at_the_byte() {
    let mut bench = Bench::new();
    let bytes = large();
    let half = bytes.len() / 2;
    let file = bytes.clone();
    // The first request looks at the head.
    let server = Server::start(move |number, request| {
        let reply = Reply::file(&file, "\"one\"", request);
        if number == 1 { reply.cut(half) } else { reply }
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
    let asked: Vec<_> = server.requests().into_iter().map(|r| (r.from, r.if_range)).collect();
    assert_eq!(asked[1], (None, None));
    assert_eq!(asked[2], (Some(half), Some("\"one\"".to_owned())));
    assert_eq!(asked.len(), 3);
}

#[test]
fn a_cut_import_goes_on_in_the_next_run() {
    let mut bench = Bench::new();
    let bytes = large();
    let half = bytes.len() / 2;
    let file = bytes.clone();
    let server = Server::start(move |number, request| match number {
        0 => Reply::file(&file, "\"one\"", request),
        1 => Reply::file(&file, "\"one\"", request).cut(half),
        // Not one more byte, until the import gives up.
        2..=9 => Reply::file(&file, "\"one\"", request).cut(0),
        _ => Reply::file(&file, "\"one\"", request),
    });
    let text = bench.refuse(server.url("net.onnx"), "broken-answer");
    assert!(text.contains("same command again"), "{text}");
    assert!(text.contains(&half.to_string()), "{text}");
    drop(server.requests());
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
    let asked: Vec<_> = server.requests().into_iter().map(|r| r.from).collect();
    assert!(asked.contains(&Some(half)), "{asked:?}");
    assert!(!asked.contains(&None), "nothing was fetched twice: {asked:?}");
}

#[test]
fn a_file_that_has_changed_meanwhile_is_fetched_anew() {
    let mut bench = Bench::new();
    let (old, new) = (vec![8; 50_000], large());
    let expected = new.clone();
    let server = Server::start(move |number, request| match number {
        0 => Reply::file(&new, "\"new\"", request),
        1 => Reply::file(&old, "\"old\"", request).cut(40_000),
        _ => Reply::file(&new, "\"new\"", request),
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), expected);
}

#[test]
fn a_server_that_cannot_continue_is_asked_for_all_of_it() {
    let mut bench = Bench::new();
    let bytes = large();
    let file = bytes.clone();
    let server = Server::start(move |number, _| {
        let reply = Reply { body: file.clone(), ..Reply::status(200) };
        if number == 1 { reply.cut(1000) } else { reply }
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
}

#[test]
fn a_server_that_lies_about_ranges_spoils_nothing() {
    let mut bench = Bench::new();
    let bytes = large();
    let file = bytes.clone();
    let server = Server::start(move |number, request| match number {
        1 => Reply::file(&file, "\"one\"", request).cut(1000),
        // Bytes from somewhere else than was asked for.
        2 => Reply { body: file[2000..].to_vec(), ..Reply::status(206) }
            .header("Content-Range", format!("bytes 2000-{}/{}", file.len() - 1, file.len())),
        // A range without saying which.
        3 => Reply { body: file[1000..].to_vec(), ..Reply::status(206) },
        _ => Reply::file(&file, "\"one\"", request),
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
}

#[test]
fn refusals_say_which_and_are_not_tried_again() {
    for (status, code) in [(401, "source-refused"), (403, "source-refused"), (404, "not-found")] {
        let mut bench = Bench::new();
        let server = Server::start(move |_, _| Reply::status(status));
        let text = bench.refuse(server.url("net.onnx?token=secret"), code);
        assert!(text.contains(&status.to_string()), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_busy_server_is_asked_again() {
    let mut bench = Bench::new();
    let bytes = large();
    let file = bytes.clone();
    let server = Server::start(move |number, request| match number {
        1 => Reply::status(503).header("Retry-After", "0"),
        2 => Reply::status(429),
        _ => Reply::file(&file, "\"one\"", request),
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let mut bench = Bench::new();
    let server = Server::of(large());
    bench.settings.sha256 = Some(Digest::of(b"other"));
    bench.refuse(server.url("net.onnx"), "wrong-digest");
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_too_large_is_not_fetched() {
    let mut bench = Bench::new();
    let server = Server::of(large());
    bench.settings.max_size = 10_000;
    bench.refuse(server.url("net.onnx"), "source-too-large");
}

#[test]
fn a_page_instead_of_a_file_is_told_as_one() {
    let mut bench = Bench::new();
    let server = Server::of(b"<!DOCTYPE html><html>sign in</html>".to_vec());
    let text = bench.refuse(server.url("net.onnx"), "other-format");
    assert!(text.contains("web page"), "{text}");
}

#[test]
fn redirects_are_followed_and_endless_ones_are_not() {
    let mut bench = Bench::new();
    let bytes = large();
    let file = bytes.clone();
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/net.onnx" => Reply::status(302).header("Location", "/real"),
        "/loop" => Reply::status(302).header("Location", "/loop"),
        _ => Reply::file(&file, "\"one\"", request),
    });
    let (_, package) = bench.import(server.url("net.onnx"));
    assert_eq!(model(&package), bytes);
    bench.settings.out = Some(bench.path("loop"));
    bench.refuse(server.url("loop"), "unreachable");
}

#[test]
fn nobody_there_is_said() {
    let mut bench = Bench::new();
    let text = bench.refuse("http://127.0.0.1:9/net.onnx", "unreachable");
    assert!(text.contains("127.0.0.1:9"), "{text}");
}

#[test]
fn a_dry_run_fetches_only_the_first_bytes() {
    let mut bench = Bench::new();
    bench.settings.dry_run = true;
    let server = Server::of(large());
    let imported = bench.try_import(&server.url("net.onnx")).unwrap();
    assert!(imported.dry_run && imported.signature.is_none());
    assert_eq!(server.requests().len(), 1);
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 0);
}
