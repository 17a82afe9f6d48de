//! Packages as image layouts: packed, opened, damaged, and made by others.

mod damage;
mod directory;
mod foreign;
mod fuzz;
mod round_trip;
mod support;
