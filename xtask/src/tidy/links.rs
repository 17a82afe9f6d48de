//! Links in Markdown that point into the tree must arrive.

use std::path::Path;

use super::Problem;
use super::files::File;

/// Check one file.
pub fn check(root: &Path, file: &File, problems: &mut Vec<Problem>) {
    let folder = root.join(&file.path);
    let folder = folder.parent().unwrap_or(root);
    for (line, target) in links(&file.text) {
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || folder.join(path).exists() {
            continue;
        }
        let place = format!("{}:{line}", file.path);
        problems.push(Problem::new(place, format!("links to {path}, which does not exist")));
    }
}

/// Line and target of every `[text](target)` outside code, addresses of the web left out.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second part is inside backquotes.
        for prose in text.split('`').step_by(2) {
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let local = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
            links.extend(targets.filter(local).map(|target| (line, target)));
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_tree_are_found_and_others_left_alone() {
        let text = "see [a](b.md#c) and [d](https://e)\n```\n[f](g)\n```\n`[h](i)` [j](#k)\n";
        assert_eq!(links(text), [(1, "b.md#c"), (5, "#k")]);
    }
}
