//! Codings without a server: what goes in comes out, and what is wrong is refused.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
const MEMORY: u64 = 64 << 20;

fn limits(max: u64, align_at: usize) -> BodyLimits {
    BodyLimits { max, whose: "the test".into(), timeout: Duration::from_secs(1), align_at }
}

fn small(coding: Coding, plain: &[u8]) -> Vec<u8> {
    // In two pieces, as an answer with a binary tensor is.
    let (first, second) = plain.split_at(plain.len() / 3);
    compress(coding, &[Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)]).unwrap()
}

fn plain(
    coding: Coding,
    body: &[u8],
    limits: &BodyLimits,
    memory: &Arc<BodyMemory>,
) -> Result<(Bytes, Held), Failure> {
    inflate(coding, body, limits, Held::of(memory))
}

fn accepts(text: &str) -> Option<Coding> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
    wanted(&headers)
}

#[test]
fn an_answer_is_coded_as_the_client_prefers() {
    use Coding::{Deflate, Gzip, Zstd};
    let table = [
        ("gzip", Some(Gzip)),
        ("x-gzip", Some(Gzip)),
        ("GZIP, deflate", Some(Gzip)),
        ("gzip, deflate, br, zstd", Some(Zstd)),
        ("gzip;q=1.0, zstd;q=0.5", Some(Gzip)),
        ("deflate;q=0.9, gzip; q=0.1", Some(Deflate)),
        ("*", Some(Zstd)),
        ("*;q=0.5, zstd;q=0", Some(Gzip)),
        ("identity", None),
        ("br", None),
        ("gzip;q=0", None),
        ("gzip;q=nan", None),
        ("gzip;q=7", None),
        ("", None),
        (",,;", None),
    ];
    for (text, want) in table {
        assert_eq!(accepts(text), want, "{text}");
    }
    assert_eq!(wanted(&HeaderMap::new()), None);
}

#[test]
fn only_one_known_coding_of_a_request_is_taken() {
    let coding = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        of_request(&headers)
    };
    assert_eq!(coding(&[]).unwrap(), None);
    assert_eq!(coding(&["Identity"]).unwrap(), None);
    assert_eq!(coding(&["zstd"]).unwrap(), Some(Coding::Zstd));
    assert_eq!(coding(&["Gzip"]).unwrap(), Some(Coding::Gzip));
    for wrong in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &[""]] {
        assert!(matches!(coding(wrong), Err(Failure::ContentEncoding(_))), "{wrong:?}");
    }
}

#[test]
fn a_body_has_its_limit_when_it_is_inflated() {
    for coding in ALL {
        let memory = BodyMemory::new(MEMORY);
        let bomb = small(coding, &vec![0; 32 << 20]);
        assert!(bomb.len() < 512 << 10, "{coding:?}: {} bytes", bomb.len());
        let refused = plain(coding, &bomb, &limits(1 << 20, 0), &memory).map(drop);
        assert!(matches!(refused, Err(Failure::TooLarge { limit, .. }) if limit == 1 << 20));
        let exact = plain(coding, &bomb, &limits(32 << 20, 0), &memory).unwrap();
        assert_eq!(exact.0.len(), 32 << 20);
        assert_eq!(memory.left(), MEMORY - (32 << 20), "{coding:?}");
        // Together they are larger than all bodies may be.
        let second = plain(coding, &bomb, &limits(32 << 20, 0), &memory).map(drop);
        assert!(matches!(second, Err(Failure::OutOfBodyMemory)), "{second:?}");
        drop(exact);
        assert_eq!(memory.left(), MEMORY, "{coding:?}");
    }
}

#[test]
fn a_body_that_is_cut_or_changed_or_has_a_tail_is_refused() {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n).to_string().into_bytes()).collect();
    for coding in ALL {
        let memory = BodyMemory::new(MEMORY);
        let good = small(coding, &text);
        let check = |body: &[u8], what: &str| {
            let refused = plain(coding, body, &limits(1 << 20, 0), &memory).map(drop);
            assert!(matches!(refused, Err(Failure::Compressed { .. })), "{coding:?} {what}");
        };
        for length in [1, good.len() / 2, good.len() - 5, good.len() - 1] {
            check(&good[..length], &format!("cut at {length}"));
        }
        check(&[&good[..], b"and more"].concat(), "with a tail");
        check(&text, "not compressed");
        if coding != Coding::Zstd {
            // Zstd's checksum is optional, and senders leave it out.
            let mut changed = good.clone();
            let last = changed.len() - 1;
            changed[last] ^= 1;
            check(&changed, "with a wrong check sum");
        }
        assert_eq!(memory.left(), MEMORY);
    }
}

#[test]
fn a_window_that_no_sender_may_use_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![1; 1 << 20]).unwrap();
    let body = encoder.finish().unwrap();
    let memory = BodyMemory::new(MEMORY);
    let refused = plain(Coding::Zstd, &body, &limits(8 << 20, 0), &memory).map(drop);
    assert!(matches!(refused, Err(Failure::Compressed { .. })), "{refused:?}");
}

#[test]
fn members_and_frames_in_a_row_are_one_body() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let memory = BodyMemory::new(MEMORY);
        let body = [small(coding, b"one "), small(coding, b"two")].concat();
        let (both, _) = plain(coding, &body, &limits(100, 0), &memory).unwrap();
        assert_eq!(both, "one two");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_comes_out_aligned_and_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..100_000),
        align_at in 0_usize..300,
    ) {
        let memory = BodyMemory::new(MEMORY);
        for coding in ALL {
            let limits = limits(100_000, align_at);
            let (out, held) = plain(coding, &small(coding, &bytes), &limits, &memory).unwrap();
            prop_assert_eq!(&out, &bytes);
            drop(held);
            prop_assert_eq!(memory.left(), MEMORY);
        }
    }

    #[test]
    fn any_bytes_are_inflated_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let memory = BodyMemory::new(MEMORY);
        for coding in ALL {
            let _ = plain(coding, &bytes, &limits(1 << 20, 0), &memory);
            prop_assert_eq!(memory.left(), MEMORY);
        }
    }
}
