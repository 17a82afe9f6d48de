use proptest::prelude::*;

use super::*;

const DELAY: Duration = Duration::from_millis(2);

struct Script {
    start: Instant,
    batches: Batches<u32>,
}

impl Script {
    fn new(max_rows: u64) -> Self {
        Self { start: Instant::now(), batches: Batches::new(max_rows, DELAY, 100) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, ms: u64, tail: u64, rows: u64, item: u32) -> Pushed {
        let signature = Signature::from_iter([Shape::from_slice(&[tail])]);
        self.batches.push(self.at(ms), signature, rows, item)
    }

    fn take(&mut self, ms: u64) -> Option<Vec<u32>> {
        self.batches.take(self.at(ms))
    }
}

#[test]
fn a_batch_starts_when_it_is_full() {
    let mut script = Script::new(3);
    assert_eq!(script.push(0, 1, 1, 10), Pushed::Wake(RequestId(0)));
    assert_eq!(script.push(0, 1, 1, 11), Pushed::Joined(RequestId(1)));
    assert_eq!(script.take(1), None);
    assert_eq!(script.push(1, 1, 1, 12), Pushed::Wake(RequestId(2)));
    assert_eq!(script.take(1), Some(vec![10, 11, 12]));
    assert_eq!(script.batches.next_deadline(), None);
}

#[test]
fn a_batch_starts_when_its_first_request_has_waited_long_enough() {
    let mut script = Script::new(8);
    script.push(0, 1, 1, 10);
    script.push(1, 1, 1, 11);
    assert_eq!(script.batches.next_deadline(), Some(script.at(2)));
    assert_eq!(script.take(1), None);
    assert_eq!(script.take(2), Some(vec![10, 11]));
}

#[test]
fn what_is_late_goes_on_collecting_until_somebody_takes_it() {
    let mut script = Script::new(8);
    script.push(0, 1, 1, 10);
    script.push(50, 1, 1, 11);
    assert_eq!(script.take(60), Some(vec![10, 11]));
}

#[test]
fn only_equal_shapes_join() {
    let mut script = Script::new(8);
    script.push(0, 1, 1, 10);
    script.push(0, 2, 1, 20);
    script.push(0, 1, 1, 11);
    assert_eq!(script.take(2), Some(vec![10, 11]));
    assert_eq!(script.take(2), Some(vec![20]));
}

#[test]
fn a_request_that_does_not_fit_closes_the_batch_before_it() {
    let mut script = Script::new(4);
    script.push(0, 1, 3, 10);
    script.push(0, 1, 2, 11);
    assert_eq!(script.take(0), Some(vec![10]));
    assert_eq!(script.take(0), None);
    script.push(0, 1, 2, 12);
    assert_eq!(script.take(0), Some(vec![11, 12]));
}

#[test]
fn a_request_with_too_many_rows_or_none_runs_alone_and_closes_nothing() {
    let mut script = Script::new(4);
    script.push(0, 1, 1, 10);
    script.push(0, 1, 9, 11);
    script.push(0, 1, 0, 12);
    script.push(0, 1, 1, 13);
    assert_eq!(script.take(0), Some(vec![11]));
    assert_eq!(script.take(0), Some(vec![12]));
    assert_eq!(script.take(2), Some(vec![10, 13]));
}

#[test]
fn a_request_that_left_makes_room() {
    let mut script = Script::new(2);
    script.push(0, 1, 1, 10);
    assert_eq!(script.batches.remove(RequestId(0), 1), Some(10));
    assert_eq!(script.batches.remove(RequestId(0), 1), None);
    assert_eq!(script.batches.next_deadline(), None);
    script.push(0, 1, 1, 11);
    script.push(0, 1, 1, 12);
    assert_eq!(script.take(0), Some(vec![11, 12]));
}

#[test]
fn an_endless_delay_is_bounded() {
    let start = Instant::now();
    let mut batches = Batches::new(2, Duration::MAX, 1);
    batches.push(start, Signature::new(), 1, ());
    assert_eq!(batches.next_deadline(), Some(start + MAX_DELAY));
}

#[test]
fn the_queue_is_bounded() {
    let mut script = Script::new(1);
    (0..100).for_each(|item| _ = script.push(0, 1, 1, item));
    assert_eq!(script.push(0, 1, 1, 100), Pushed::Full);
    script.take(0).unwrap();
    assert_ne!(script.push(0, 1, 1, 100), Pushed::Full);
}

proptest! {
    #[test]
    fn every_request_is_taken_once_in_order_and_no_batch_is_too_large(
        max_rows in 2_u64..10,
        requests in prop::collection::vec((0_u64..3, 0_u64..12, 0_u64..3), 1..60),
        take_every in 1_usize..10,
    ) {
        let mut script = Script::new(max_rows);
        let mut taken = Vec::new();
        let (mut clock, rows): (u64, Vec<u64>) = (0, requests.iter().map(|r| r.1).collect());
        for (item, (tail, rows, pause)) in requests.iter().enumerate() {
            clock += pause;
            script.push(clock, *tail, *rows, item as u32);
            if item % take_every == 0 {
                taken.extend(script.take(clock));
            }
        }
        while let Some(batch) = script.take(clock + 10) {
            taken.push(batch);
        }
        prop_assert_eq!(script.batches.waiting, 0);
        for batch in &taken {
            let total: u64 = batch.iter().map(|&item| rows[item as usize]).sum();
            prop_assert!(total <= max_rows || batch.len() == 1);
            prop_assert!(batch.is_sorted());
            let tails = batch.iter().map(|&item| requests[item as usize].0);
            prop_assert_eq!(tails.collect::<std::collections::BTreeSet<_>>().len(), 1);
        }
        let mut all: Vec<u32> = taken.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..requests.len() as u32).collect::<Vec<_>>());
    }
}
