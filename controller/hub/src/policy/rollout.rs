//! A rollout as somebody wrote it, as the planner takes it.

use std::time::Duration;

use jiff::civil::Weekday;
use wick_api::Quantity;
use wick_api::fleet::{self, Amount, Day, ModelVersion, RolloutSpec};
use wick_fleet::plan::{Gate, OnFailure, Rollout, Share, Size, Wave, Window};
use wick_fleet::{Model, RolloutName, check_models};
use wick_package::Reference;

use super::Wrong;

/// Percent of a hundred percent, in ten thousand.
const WHOLE: u32 = 10_000;

pub(super) fn rollout(name: RolloutName, spec: &RolloutSpec) -> Result<Rollout, Wrong> {
    let mut models = Vec::new();
    for (at, version) in spec.models.iter().enumerate() {
        models.push(model(&format!("spec.models[{at}]"), version)?);
    }
    check_models(&models).map_err(|error| Wrong::new("spec.models", &error))?;
    let mut rollout = Rollout::new(name, models);
    for (at, name) in spec.remove.iter().enumerate() {
        let name =
            name.parse().map_err(|error| Wrong::new(&format!("spec.remove[{at}]"), &error))?;
        rollout.remove.push(name);
    }
    if rollout.models.is_empty() && rollout.remove.is_empty() {
        return Err(Wrong::new(
            "spec",
            &"it changes nothing: it has neither `models` nor `remove`",
        ));
    }
    rollout.select = spec.select.clone();
    if !spec.waves.is_empty() {
        let last = spec.waves.len() - 1;
        let waves = spec.waves.iter().enumerate();
        let waves: Result<_, _> = waves.map(|(at, one)| wave(at, at == last, one)).collect();
        rollout.waves = waves?;
    }
    if let Some(most) = spec.max_unavailable {
        rollout.max_unavailable = share(most);
    }
    rollout.window = spec.window.as_ref().map(window).transpose()?;
    rollout.settle = spec.settle.map_or(rollout.settle, Duration::from);
    rollout.offline = spec.offline.map_or(rollout.offline, Duration::from);
    rollout.on_failure = match spec.on_failure {
        fleet::OnFailure::RollBack => OnFailure::RollBack,
        fleet::OnFailure::Pause => OnFailure::Pause,
    };
    Ok(rollout)
}

/// A number of bytes.
pub(super) fn bytes(field: &str, amount: &Quantity) -> Result<u64, Wrong> {
    let what = format!("`{amount}` is no whole number of bytes: write for instance `256Mi`");
    amount.bytes().ok_or_else(|| Wrong::new(field, &what))
}

fn model(field: &str, version: &ModelVersion) -> Result<Model, Wrong> {
    let below = |name: &str| format!("{field}.{name}");
    let name = version.name.parse().map_err(|error| Wrong::new(&below("name"), &error))?;
    let image: Reference =
        version.image.parse().map_err(|error| Wrong::new(&below("image"), &error))?;
    let missing = "it has no digest, and what a tag stands for changes: write `…@sha256:` and the digest \
                   that `wick push` prints";
    let digest = image.digest().ok_or_else(|| Wrong::new(&below("image"), &missing))?;
    Ok(Model {
        name,
        image: image.image().name(),
        digest,
        bytes: bytes(&below("disk"), &version.disk)?,
        memory: bytes(&below("memory"), &version.memory)?,
    })
}

fn wave(at: usize, last: bool, wave: &fleet::Wave) -> Result<Wave, Wrong> {
    let field = format!("spec.waves[{at}]");
    let size = match (wave.take, &wave.label) {
        (Some(_), Some(_)) => {
            return Err(Wrong::new(&field, &"it has `take` and `label`: leave one out"));
        }
        (Some(Amount::Count(count)), None) => Size::Count(count as usize),
        (Some(Amount::Percent(percent)), None) => Size::Percent(percent),
        (None, Some(label)) => Size::Label { key: label.key.clone(), value: label.value.clone() },
        (None, None) if last => Size::Rest,
        (None, None) => {
            let what = "it takes all that is left, and is not the last: write `take` or `label`";
            return Err(Wrong::new(&field, &what));
        }
    };
    Ok(Wave { size, gate: gate(&format!("{field}.gate"), &wave.gate)? })
}

fn gate(field: &str, gate: &fleet::Gate) -> Result<Gate, Wrong> {
    let below = |name: &str| format!("{field}.{name}");
    let success = gate.success.map_or(WHOLE, wick_api::Percent::in_ten_thousand);
    if success > WHOLE || !success.is_multiple_of(100) {
        let what = "write a whole percentage up to `100%`";
        return Err(Wrong::new(&below("success"), &what));
    }
    let p99 = gate.p99.map(|p99| u64::try_from(p99.get().as_micros()).unwrap_or(u64::MAX));
    Ok(Gate {
        success: u8::try_from(success / 100).unwrap_or(100),
        errors: gate.errors.map(wick_api::Percent::in_ten_thousand),
        p99_us: p99,
        bake: gate.bake.map_or(Duration::ZERO, Duration::from),
        approval: gate.approval,
    })
}

fn share(amount: Amount) -> Share {
    match amount {
        Amount::Count(count) => Share::Count(count as usize),
        Amount::Percent(percent) => Share::Percent(percent),
    }
}

fn window(window: &fleet::Window) -> Result<Window, Wrong> {
    let minute = |field: &str, text: &str| {
        let what = format!("`{text}` is no minute of a day: write for instance `22:00`");
        minute(text).ok_or_else(|| Wrong::new(field, &what))
    };
    let from = minute("spec.window.from", &window.from)?;
    let until = minute("spec.window.until", &window.until)?;
    let days = window.days.iter().map(|day| weekday(*day)).collect();
    Window::new(days, from, until).map_err(|error| Wrong::new("spec.window", &error))
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let (hour, minute): (u16, u16) = if digits(hour) && digits(minute) {
        (hour.parse().ok()?, minute.parse().ok()?)
    } else {
        return None;
    };
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    }
}
