//! What processes print, and which request each line belongs to.
//!
//! Lines are read by another thread than calls are made by, when the process may be at its next call already, or at one that
//! php-pool still takes to stand in its pipe. So a process says in what it prints where a call begins: it writes a mark, a line with
//! the call's number. That is a write and a read per call, which only a pool that prints pays for. The first lines after a
//! long silence go by what the process works on when they are read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::process::Work;
use crate::protocol::{MARK_STDERR, MARK_STDOUT};

/// What a mark begins with: ASCII's record separator, which no text has.
const MARK: char = '\u{1e}';
/// The digits behind it.
const DIGITS: usize = 16;
/// Calls with a mark that was not read yet, at most: more than there is room for in a pipe. A function that closes its standard
/// error leaves none to be read.
const MARKED: usize = 4096;

/// Where a process prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout = 0,
    Stderr = 1,
}

impl Channel {
    pub(crate) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The flag that asks for marks in it.
    fn flag(self) -> u8 {
        match self {
            Self::Stdout => MARK_STDOUT,
            Self::Stderr => MARK_STDERR,
        }
    }
}

/// Whose the lines of one process are.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    channels: [Mutex<Marked<Work>>; 2],
    /// Its last call was asked for a mark.
    marking: AtomicBool,
}

impl Printed {
    /// The call with this number goes to the process, with `flags`.
    pub(crate) fn expect(&self, number: u64, flags: u8, work: impl Fn() -> Work) {
        let marks = flags & (MARK_STDOUT | MARK_STDERR) != 0;
        if !marks && !self.marking.load(Ordering::Relaxed) {
            return;
        }
        self.marking.store(marks, Ordering::Relaxed);
        for (channel, marked) in Channel::ALL.into_iter().zip(&self.channels) {
            match flags & channel.flag() {
                0 => marked.lock().forget(),
                _ => marked.lock().expect(number, work()),
            }
        }
    }

    /// Whether the mark of the call with this number is on its way. One that nobody expects is text: what functions log may come
    /// from clients, who do not know the numbers.
    pub(crate) fn is_expected(&self, channel: Channel, number: u64) -> bool {
        self.channels[channel as usize].lock().place(number).is_some()
    }

    /// The mark of the call with this number was read.
    pub(crate) fn reached(&self, channel: Channel, number: u64) {
        self.channels[channel as usize].lock().reached(number);
    }

    /// The request that what is read next belongs to; `None` where nothing says so.
    pub(crate) fn work(&self, channel: Channel) -> Option<Work> {
        self.channels[channel as usize].lock().current.clone()
    }
}

/// Calls whose marks are on their way, in the order of their numbers, and the one whose mark was read last.
#[derive(Debug)]
struct Marked<T> {
    /// Without the call: there was nothing to tell apart any more when the next one began.
    expected: VecDeque<(u64, Option<T>)>,
    current: Option<T>,
}

impl<T> Default for Marked<T> {
    fn default() -> Self {
        Self { expected: VecDeque::new(), current: None }
    }
}

impl<T> Marked<T> {
    fn expect(&mut self, number: u64, call: T) {
        if self.expected.len() == MARKED {
            self.expected.pop_front();
        }
        self.expected.push_back((number, Some(call)));
    }

    /// A call without a mark follows: there was nothing to tell apart for long.
    fn forget(&mut self) {
        self.current = None;
        self.expected.iter_mut().for_each(|(_, call)| *call = None);
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.expected.iter().position(|(expected, _)| *expected == number)
    }

    /// Those before it were taken back, or expired: they never ran.
    fn reached(&mut self, number: u64) {
        if let Some(place) = self.place(number) {
            self.current = self.expected.drain(..=place).next_back().and_then(|(_, call)| call);
        }
    }
}

/// The mark at the end of a line, and the text before it: what the call before wrote without an end of line.
pub(crate) fn mark(line: &str) -> Option<(&str, u64)> {
    let (text, digits) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
    let text = text.strip_suffix(MARK)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // As the bytes stand in the call's header.
    Some((text, number.swap_bytes()))
}

/// Whether the processes of a pool print anything, of late.
#[derive(Debug, Default)]
pub(crate) struct Prints {
    of_late: [AtomicBool; 2],
    since_look: [AtomicBool; 2],
}

impl Prints {
    /// A process has printed something.
    pub(crate) fn seen(&self, channel: Channel) {
        self.since_look[channel as usize].store(true, Ordering::Relaxed);
        self.of_late[channel as usize].store(true, Ordering::Relaxed);
    }

    /// The flags of a call: marks where something was printed since the look before the last.
    pub(crate) fn flags(&self) -> u8 {
        let marked = Channel::ALL.into_iter().filter(|channel| self.of_late[*channel as usize].load(Ordering::Relaxed));
        marked.map(Channel::flag).sum()
    }

    /// Forgets what was seen before the last look.
    pub(crate) fn look(&self) {
        for (of_late, since_look) in self.of_late.iter().zip(&self.since_look) {
            of_late.store(since_look.swap(false, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_text() {
        assert_eq!(mark("\u{1e}0100000000000000"), Some(("", 1)));
        assert_eq!(mark("half a line\u{1e}ff01000000000000"), Some(("half a line", 0x1ff)));
        for text in [
            "",
            "0100000000000000",
            "\u{1e}010000000000000",
            "\u{1e}010000000000000g",
            "\u{1e}0100000000000000 ",
            "ééééééééé",
        ] {
            assert_eq!(mark(text), None, "{text}");
        }
    }

    #[test]
    fn lines_belong_to_the_call_whose_mark_came_last() {
        let mut marked = Marked::default();
        assert_eq!(marked.current, None);
        for number in 1..=4 {
            marked.expect(number, number * 10);
        }
        marked.reached(1);
        assert_eq!(marked.current, Some(10));
        // The second and the third were taken back.
        marked.reached(4);
        assert_eq!((marked.current, marked.expected.len()), (Some(40), 0));
        // Nobody's: it changes nothing.
        assert_eq!(marked.place(9), None);
        marked.reached(9);
        assert_eq!(marked.current, Some(40));
        marked.expect(10, 100);
        marked.forget();
        assert!(marked.place(10).is_some(), "it is a mark still, if of a call that does not matter any more");
        marked.reached(10);
        assert_eq!(marked.current, None);
    }

    #[test]
    fn marks_that_never_come_take_no_more_than_their_room() {
        let mut marked = Marked::default();
        for number in 0..3 * MARKED as u64 {
            marked.expect(number, number);
        }
        assert_eq!(marked.expected.len(), MARKED);
        marked.reached(3 * MARKED as u64 - 1);
        assert_eq!((marked.current, marked.expected.len()), (Some(3 * MARKED as u64 - 1), 0));
    }

    #[test]
    fn a_pool_is_asked_for_marks_until_nothing_came_between_two_looks() {
        let prints = Prints::default();
        assert_eq!(prints.flags(), 0);
        prints.seen(Channel::Stderr);
        prints.look();
        assert_eq!(prints.flags(), MARK_STDERR);
        prints.seen(Channel::Stdout);
        prints.look();
        assert_eq!(prints.flags(), MARK_STDOUT);
        prints.look();
        assert_eq!(prints.flags(), 0);
    }
}
