//! Whole stacks, end to end: the same requests through every wiring, and what happens when parts of them die.

mod support;

mod answers;
mod faults;
mod signals;
