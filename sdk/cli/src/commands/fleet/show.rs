//! A hub's answers as text and tables.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use comfy_table::Table;
use serde_json::Value;

use crate::output;

/// Characters of a commit or a digest that people compare.
const SHORT: usize = 12;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn short(text: &str) -> &str {
    let text = text.trim_start_matches("sha256:");
    text.get(..SHORT).unwrap_or(text)
}

/// How long ago a time in milliseconds since 1970 was.
fn ago(millis: u64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let since = SystemTime::now().duration_since(then).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(since.as_secs())).to_string()
}

fn time(millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Whether a site doesn't serve what it is to have.
pub fn is_behind(site: &Value) -> bool {
    !site["revoked"].as_bool().unwrap_or(false)
        && number(site, "serving") != number(site, "generation")
}

/// The key that the hub signs with since.
pub fn rotated(made: &Value) -> String {
    format!("the hub signs with {}: `wick fleet status` says who believes it", text(made, "key"))
}

pub fn status(status: &Value) -> String {
    let mut shown = String::new();
    let mut line = |text: String| {
        // Into a text it never fails.
        let _ = writeln!(shown, "{text}");
    };
    let (link, source, sites) = (&status["link"], &status["source"], &status["sites"]);
    let since = ago(number(link, "since"));
    match (link["connected"].as_bool(), link["error"].as_str()) {
        (Some(true), _) => line(format!("broker    connected for {since}")),
        (_, Some(error)) => line(format!("broker    {}: {error}", output::red("not connected"))),
        _ => line("broker    not connected yet".to_owned()),
    }
    let (url, reference) = (text(source, "url"), text(source, "reference"));
    let commit = source["commit"].as_str().map_or("no commit yet", short);
    line(format!("policy    {commit} of {url} ({reference})"));
    for mistake in list(source, "mistakes") {
        let (file, what) = (text(mistake, "file"), text(mistake, "what"));
        let at = mistake["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        let field = mistake["field"].as_str().filter(|field| !field.is_empty());
        let field = field.map(|field| format!(" {field}:")).unwrap_or_default();
        line(format!("          {} {file}{at}:{field} {what}", output::red("not taken:")));
    }
    if let (Some(error), []) = (source["error"].as_str(), list(source, "mistakes")) {
        line(format!("          {} {error}", output::red("not taken:")));
    }
    let counts =
        ["online", "converged", "failed", "revoked"].map(|name| (name, number(sites, name)));
    let counts = counts.map(|(name, count)| format!(", {count} {name}")).concat();
    line(format!("sites     {} enrolled{counts}", number(sites, "enrolled")));
    let keys = &status["keys"];
    let (serial, believers) = (number(keys, "serial"), number(keys, "sites"));
    line(format!("keys      list {serial}, which {believers} sites say that they believe"));
    for problem in list(status, "problems") {
        line(format!(
            "{} {}",
            output::red("the last plan is not published:"),
            problem.as_str().unwrap_or_default()
        ));
    }
    if !list(status, "rollouts").is_empty() {
        shown += "\n";
        shown += &rollouts(&status["rollouts"]);
    }
    shown
}

pub fn rollouts(all: &Value) -> String {
    let mut table = output::table([
        "ROLLOUT", "PHASE", "WAVE", "DONE", "MOVING", "WAITING", "FAILED", "SKIPPED", "FOR", "",
    ]);
    for rollout in all.as_array().into_iter().flatten() {
        let sites = &rollout["sites"];
        let count = |name: &str| number(sites, name).to_string();
        let waiting = number(sites, "planned") + number(sites, "waiting");
        let note = match (rollout["reason"].as_str(), rollout["wants_approval"].as_bool()) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(true)) => "wants approval".to_owned(),
            _ => String::new(),
        };
        table.add_row([
            text(rollout, "name").to_owned(),
            text(rollout, "phase").to_owned(),
            format!("{}/{}", number(rollout, "wave"), number(rollout, "waves")),
            count("done"),
            count("moving"),
            waiting.to_string(),
            count("failed"),
            count("skipped"),
            ago(number(rollout, "since")),
            note,
        ]);
    }
    shown(&table)
}

pub fn rollout(one: &Value) -> String {
    let mut text_ = rollouts(&Value::Array(vec![one.clone()]));
    let mut table = output::table(["SITE", "WAVE", "STAGE"]);
    for (site, mark) in one["marks"].as_object().into_iter().flatten() {
        table.add_row([
            site.clone(),
            number(mark, "wave").to_string(),
            text(mark, "stage").to_owned(),
        ]);
    }
    text_ += "\n\n";
    text_ += &shown(&table);
    text_
}

pub fn sites(all: &Value) -> String {
    let mut table = output::table(["SITE", "", "WANTED", "SERVES", "STATE", "MODELS", "SINCE"]);
    for site in all.as_array().into_iter().flatten() {
        let (revoked, online) = (site["revoked"].as_bool(), site["online"].as_bool());
        let presence = match (revoked, online) {
            (Some(true), _) => "revoked",
            (_, Some(true)) => "online",
            _ => "offline",
        };
        let state = match site["reason"].as_str() {
            Some(reason) => format!("{} ({reason})", text(site, "state")),
            None => text(site, "state").to_owned(),
        };
        let models = list(site, "served").iter();
        let models =
            models.map(|model| format!("{}@{}", text(model, "name"), short(text(model, "digest"))));
        table.add_row([
            text(site, "name").to_owned(),
            presence.to_owned(),
            number(site, "generation").to_string(),
            number(site, "serving").to_string(),
            state,
            models.collect::<Vec<_>>().join(" "),
            site["since"].as_u64().map_or_else(|| "never heard of".to_owned(), ago),
        ]);
    }
    shown(&table)
}

pub fn site(one: &Value) -> String {
    let mut text_ = sites(&Value::Array(vec![one.clone()]));
    let mut line = |name: &str, value: String| {
        let _ = write!(text_, "\n{name:<12}{value}");
    };
    let labels = one["labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    line("labels", labels.collect::<Vec<_>>().join(" "));
    line("memory", output::size(number(one, "memory")));
    line("disk", output::size(number(one, "disk")));
    for model in list(one, "models") {
        line(
            "wanted",
            format!("{} {}@{}", text(model, "name"), text(model, "image"), text(model, "digest")),
        );
    }
    if let Some(seconds) = one["certificate"].as_u64() {
        line("certificate", format!("until {}", time(seconds * 1000)));
    }
    if let Some(refused) = one["refused"].as_str() {
        line("refused", refused.to_owned());
    }
    if let Some(why) = one["distrusted"][0].as_str() {
        line("distrusted", format!("{} messages, the last: {why}", one["distrusted"][1]));
    }
    text_
}

pub fn history(all: &Value) -> String {
    let mut table = output::table(["TIME", "ROLLOUT", "PHASE", "WAVE", ""]);
    for event in list(all, "history") {
        table.add_row([
            time(number(event, "at")),
            text(event, "rollout").to_owned(),
            text(event, "phase").to_owned(),
            number(event, "wave").to_string(),
            event["reason"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    shown(&table)
}

pub fn audit(all: &Value) -> String {
    let mut table = output::table(["TIME", "WHO", "WHAT", "ABOUT"]);
    for entry in list(all, "audit") {
        let at = time(number(entry, "at"));
        table.add_row([at.as_str(), text(entry, "who"), text(entry, "what"), text(entry, "about")]);
    }
    shown(&table)
}

pub fn order(done: &Value) -> String {
    let reason = done["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "{}: {}, wave {}{reason}",
        text(done, "rollout"),
        text(done, "phase"),
        number(done, "wave")
    )
}

pub fn dry_run(dry: &Value) -> String {
    let mut shown = dry["text"].as_str().unwrap_or_default().to_owned();
    for mistake in list(dry, "mistakes") {
        let at = mistake["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        let _ = writeln!(
            shown,
            "{}{at}: {} {}",
            text(mistake, "file"),
            text(mistake, "field"),
            text(mistake, "what")
        );
    }
    for problem in list(dry, "problems") {
        let _ = writeln!(shown, "{}", problem.as_str().unwrap_or_default());
    }
    let changes = list(dry, "changes");
    let _ = write!(shown, "{} sites would move at once", changes.len());
    shown
}

fn shown(table: &Table) -> String {
    table.to_string()
}
