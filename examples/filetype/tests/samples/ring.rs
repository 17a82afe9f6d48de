use std::collections::VecDeque;

/// The last `N` readings of a sensor.
pub struct Ring<const N: usize> {
    values: VecDeque<f32>,
}

impl<const N: usize> Ring<N> {
    pub fn push(&mut self, value: f32) -> Option<f32> {
        let dropped = (self.values.len() == N).then(|| self.values.pop_front()).flatten();
        self.values.push_back(value);
        dropped
    }

    pub fn mean(&self) -> Option<f32> {
        if self.values.is_empty() {
            return None;
        }
        Some(self.values.iter().sum::<f32>() / self.values.len() as f32)
    }
}

fn main() {
    let mut ring = Ring::<3> { values: VecDeque::new() };
    for value in [20.5, 21.0, 19.5, 18.0] {
        ring.push(value);
    }
    println!("{:?}", ring.mean());
}
