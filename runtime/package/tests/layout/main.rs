//! Packages as image layouts: packed, opened, damaged, and made by others.

mod archive;
mod damage;
mod directory;
mod foreign;
mod fuzz;
mod round_trip;
mod support;
