//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

/// A moment of a random history.
#[derive(Debug, Clone)]
struct Moved {
    after: u64,
    wanted: u8,
    ready: u8,
    command: Option<Command>,
    requests: u64,
    errors: u64,
    slow: bool,
}

fn moves() -> impl Strategy<Value = Vec<Moved>> {
    let command = prop_oneof![
        12 => Just(None),
        1 => Just(Some(Command::Promote)),
        1 => Just(Some(Command::Abort)),
        1 => Just(Some(Command::Undo)),
    ];
    let one =
        (0_u64..40, 0_u8..4, 0_u8..16, command, 0_u64..200, 0_u64..4, prop::bool::weighted(0.1));
    let one = one.prop_map(|(after, wanted, ready, command, requests, errors, slow)| Moved {
        after,
        wanted,
        ready,
        command,
        requests,
        errors,
        slow,
    });
    prop::collection::vec(one, 1..80)
}

fn seen_of(moved: &Moved) -> Seen {
    let names = ["a", "b", "c", "d"].map(name);
    let p99 = |slow| Some(Duration::from_millis(if slow { 500 } else { 10 }));
    let active = Stats { requests: moved.requests, errors: 0, p99: p99(false) };
    let candidate = Stats { errors: moved.errors, p99: p99(moved.slow), ..active };
    Seen {
        wanted: Some(names[usize::from(moved.wanted)].clone()),
        ready: (0..4)
            .filter(|bit| moved.ready & (1 << bit) != 0)
            .map(|bit| names[bit].clone())
            .collect(),
        compared: Comparison { active, candidate },
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(
        moves in moves(),
        holds in prop::collection::vec(0_u64..60, 0..4),
        rolls_back: bool,
    ) {
        let steps: Vec<Value> = holds.iter().zip(1..).map(|(hold, index)| {
            json!({"weight": index * 20, "hold": format!("{hold}s")})
        }).collect();
        let on_failure = if rolls_back { "Rollback" } else { "Pause" };
        let settings = settings(json!({
            "steps": steps, "onFailure": on_failure, "progressDeadline": "30s",
        }));
        let (mut state, mut now) = (State::default(), at(0));
        for moved in &moves {
            now = now + Duration::from_secs(moved.after);
            let seen = seen_of(moved);
            let (next, events) = advance(&state, &settings, &seen, moved.command, now);
            let split = next.split(&settings, &seen.ready);
            let sum: u32 = split.iter().map(|(_, share)| u32::from(*share)).sum();
            prop_assert_eq!(sum, if next.active.is_some() { 100 } else { 0 });
            for (who, share) in &split {
                // Only what was ready before may be cold now, and its traffic is held.
                let safe = seen.ready.contains(who) || next.active.as_ref() == Some(who);
                prop_assert!(*share > 0 && safe, "{share} to {who}, which is not ready");
            }
            if next.active != state.active {
                let active = next.active.clone().unwrap();
                prop_assert!(seen.ready.contains(&active), "{active} was promoted, not ready");
            }
            if let (Phase::Stepping { candidate: a, step: old, since, .. },
                Phase::Stepping { candidate: b, step: new, .. }) = (&state.phase, &next.phase)
                && a == b && old != new
            {
                prop_assert_eq!(*new, old + 1, "no step is left out");
                prop_assert!(now.since(*since) >= Duration::from_secs(holds[*old]));
            }
            let by_hand = moved.command == Some(Command::Promote);
            if let Phase::Stepping { candidate, step, .. } = &state.phase
                && next.active.as_ref() == Some(candidate) && !by_hand
            {
                prop_assert_eq!(*step + 1, holds.len(), "{:?}", events);
            }
            prop_assert!(next.draining.len() <= MAX_DRAINING + 2, "{:?}", next.draining);
            // Through its written form, as an operator that starts anew reads it.
            let written = serde_json::to_string(&next.to_status()).unwrap();
            let read = State::from_status(&serde_json::from_str(&written).unwrap());
            prop_assert_eq!(&read, &next, "{}", written);
            prop_assert!(next.candidate().is_none() || next.candidate() != next.active.as_ref());
            state = next;
        }
    }

    /// With time alone, and one that is wanted, every state that does not wait for people ends.
    #[test]
    fn every_state_has_a_deadline(moves in moves(), rolls_back: bool) {
        let on_failure = if rolls_back { "Rollback" } else { "Pause" };
        let settings = settings(json!({"onFailure": on_failure, "progressDeadline": "30s"}));
        let (mut state, mut now) = (State::default(), at(0));
        let mut seen = Seen::default();
        for moved in &moves {
            now = now + Duration::from_secs(moved.after);
            seen = seen_of(moved);
            state = advance(&state, &settings, &seen, moved.command, now).0;
        }
        for _ in 0..40 {
            let Some(due) = state.due(&settings) else { break };
            now = now.max(due);
            let next = advance(&state, &settings, &seen, None, now).0;
            prop_assert!(next != state, "stuck in {state:?}");
            state = next;
        }
        let rests = matches!(state.phase, Phase::Idle | Phase::Late { .. } | Phase::Held { .. });
        prop_assert!(rests, "still {state:?}");
    }
}
