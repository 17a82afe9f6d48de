//! Reading lines: the graph `rec`, what goes into it and what comes out.

use wick_guest::{Error, Result, Tensor, graph};

use crate::picture::Picture;

/// Height of a line, in pixels.
const HEIGHT: u32 = 48;

/// Least width of a line, in pixels; a narrower one is padded.
const MIN_WIDTH: u32 = 320;

/// Most width of a line, in pixels; a longer one is squeezed.
const MAX_WIDTH: u32 = 3200;

/// Most lines that are read at once.
const MAX_LINES: usize = 6;

/// Most pixels along the lines that are read at once. The graph's output has 9 KiB for
/// each, on the host's side.
const MAX_TOTAL_WIDTH: u32 = 9600;

// `CHARACTERS` of the graph's classes from 1 on, made by build.rs from its dictionary.
include!(concat!(env!("OUT_DIR"), "/characters.rs"));

/// Text and score of each line.
pub(crate) fn texts(lines: &[Picture]) -> Result<Vec<(String, f32)>> {
    if CHARACTERS.is_empty() {
        return Err(Error::internal(
            "this handler was built without a dictionary: run `cargo xtask setup` and build it \
             again",
        ));
    }
    let mut texts = vec![(String::new(), 0.0); lines.len()];
    // Lines of like length are read together, so that little of a batch is padding.
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|&a, &b| ratio(&lines[a]).total_cmp(&ratio(&lines[b])));
    let mut rest = &order[..];
    while !rest.is_empty() {
        let (batch, width) = next_batch(lines, rest);
        rest = &rest[batch.len()..];
        let read = read_batch(lines, batch, width)?;
        for (&at, text) in batch.iter().zip(read) {
            texts[at] = text;
        }
    }
    Ok(texts)
}

/// The first lines of `order` that fit together, at least one, and their width.
fn next_batch<'a>(lines: &[Picture], order: &'a [usize]) -> (&'a [usize], u32) {
    let mut count = order.len().min(MAX_LINES);
    loop {
        // They are sorted: the last one is the longest.
        let longest = ratio(&lines[order[count - 1]]);
        let width = ((HEIGHT as f32 * longest) as u32).clamp(MIN_WIDTH, MAX_WIDTH);
        if count == 1 || width * count as u32 <= MAX_TOTAL_WIDTH {
            return (&order[..count], width);
        }
        count -= 1;
    }
}

fn read_batch(lines: &[Picture], batch: &[usize], width: u32) -> Result<Vec<(String, f32)>> {
    let size = 3 * HEIGHT as usize * width as usize;
    let mut planes = vec![0.0; batch.len() * size];
    for (&at, planes) in batch.iter().zip(planes.chunks_exact_mut(size)) {
        let line = &lines[at];
        let own = ((HEIGHT as f32 * ratio(line)).ceil() as u32).clamp(1, width);
        line.resized(own, HEIGHT).write_planes(planes, width as usize);
    }
    let count = batch.len() as u64;
    let input = Tensor::new(&[count, 3, HEIGHT.into(), width.into()], planes)?;
    let out = graph("rec")?.run([("x", input)])?;

    let (_, scores) = out.iter().next().ok_or_else(|| Error::internal("`rec` returned nothing"))?;
    // One class for "nothing", and a space after the dictionary.
    let classes = CHARACTERS.len() as u64 + 2;
    let &[lines, steps, own] = &scores.shape()[..] else {
        return Err(Error::internal(format_args!("`rec` returned {scores:?}")));
    };
    if (lines, own) != (count, classes) {
        return Err(Error::internal(format_args!(
            "`rec` returned {scores:?}, and the handler's dictionary has {classes} classes"
        )));
    }
    (0..lines).map(|line| read_line(scores, line * steps, steps, classes)).collect()
}

/// The most probable character at each step, without repetitions and nothings. Steps
/// are read one by one: all of them would be tens of megabytes.
fn read_line(scores: &Tensor, first: u64, steps: u64, classes: u64) -> Result<(String, f32)> {
    let mut text = String::new();
    let (mut sum, mut count) = (0.0_f32, 0_u32);
    let mut before = 0;
    for step in first..first + steps {
        let (class, score) = best(&scores.view_range::<f32>(step * classes, classes)?);
        if class != before
            && let Some(at) = class.checked_sub(1)
        {
            text.push(CHARACTERS.get(at).copied().unwrap_or(' '));
            sum += score;
            count += 1;
        }
        before = class;
    }
    Ok((text, sum / count.max(1) as f32))
}

/// The first of the greatest values and where it is.
fn best(values: &[f32]) -> (usize, f32) {
    // Finding the maximum first lets the compiler do four at once.
    let mut lanes = [f32::MIN; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let greatest = lanes.iter().chain(rest).copied().fold(f32::MIN, f32::max);
    (values.iter().position(|&value| value == greatest).unwrap_or(0), greatest)
}

fn ratio(line: &Picture) -> f32 {
    line.width as f32 / line.height as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_and_nothings_are_dropped() {
        let classes = CHARACTERS.len() + 2;
        let place = |wanted: char| {
            CHARACTERS.iter().position(|&own| own == wanted).expect("run `cargo xtask setup`") + 1
        };
        let (a, b, space) = (place('a'), place('b'), classes - 1);
        let steps = [0, a, a, 0, a, space, b, b, 0];
        let mut scores = vec![0.0_f32; steps.len() * classes];
        for (step, class) in steps.iter().enumerate() {
            scores[step * classes + class] = 0.5 + step as f32 / 20.0;
        }
        let shape = [1, steps.len() as u64, classes as u64];
        let tensor = Tensor::new(&shape, scores).unwrap();
        let (text, score) = read_line(&tensor, 0, shape[1], shape[2]).unwrap();
        assert_eq!(text, "aa b");
        assert!((score - (0.55 + 0.7 + 0.75 + 0.8) / 4.0).abs() < 1e-6, "{score}");
    }

    #[test]
    fn the_best_of_values_is_the_first_of_the_greatest() {
        let mut values = vec![0.1; 21];
        values[20] = 0.9;
        values[13] = 0.9;
        assert_eq!(best(&values), (13, 0.9));
        assert_eq!(best(&[]).0, 0);
        assert_eq!(best(&[f32::NAN; 9]).0, 0);
    }

    #[test]
    fn long_lines_are_read_in_smaller_batches() {
        let line = |width| Picture { width, height: 48, pixels: Vec::new() };
        let lines: Vec<_> = [100, 200, 300, 400, 3000, 3100, 9000].map(line).into();
        let order: Vec<usize> = (0..7).collect();
        assert_eq!(next_batch(&lines, &order[..4]), (&order[..4], 400));
        assert_eq!(next_batch(&lines, &order), (&order[..4], 400));
        assert_eq!(next_batch(&lines, &order[4..]), (&order[4..7], 3200));
    }
}
