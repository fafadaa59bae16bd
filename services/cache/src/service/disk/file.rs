//! The file: a redb database with the answers, their bodies in parts, the order in which they came, and the marks of purges.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use redb::{Database, ReadableTable as _, Table, TableDefinition, TableHandle as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use troupe_contracts::cache::Url;

use super::marks::{Marks, Purged};
use super::{Change, Place, Put, aside};
use crate::entry::Entry;
use crate::key::Key;
use crate::record;
use crate::time::Moment;

/// Says how the tables are written; another number is another program's file.
const FORMAT: u64 = 1;
/// Bytes of a body in one value: with its key it fits a page of 64 KiB, where one byte more would take 128.
const PART: usize = 60 * 1024;
/// What an answer takes beside its head and body: keys, its place in the order.
const OVERHEAD: u64 = 128;
/// Memory for pages of the file.
const PAGES: usize = 16 << 20;
/// The file may be so many times as long as what is in it, for the pages that are free between those in use, ...
const SLACK: u64 = 4;
/// ... and so much longer at least. One beyond that is begun anew.
const SLACK_BYTES: u64 = 64 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const HEADS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("answers");
const PARTS: TableDefinition<'_, (u128, u32), &[u8]> = TableDefinition::new("bodies");
const ORDER: TableDefinition<'_, u64, u128> = TableDefinition::new("order");

/// Why the file could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Busy(String),
    /// It, or its folder, cannot be read or written.
    Failed(String),
}

/// The file, open.
#[derive(Debug)]
pub(super) struct File {
    db: Database,
    place: Place,
    /// Counts the processes that have had it.
    process: u64,
    /// Bytes of the answers.
    bytes: u64,
    /// Answers so far.
    next: u64,
}

/// What stands before an answer's body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    url: Url,
    process: u64,
    born: u64,
    order: u64,
    /// What it counts for.
    bytes: u64,
    /// The wall clock in milliseconds.
    stored: u64,
    age_ms: u64,
    keep_ms: u64,
    body: u64,
    record: &'a [u8],
}

/// The tables, open for writing.
struct Tables<'a> {
    heads: Table<'a, u128, &'static [u8]>,
    parts: Table<'a, (u128, u32), &'static [u8]>,
    order: Table<'a, u64, u128>,
    marks: Marks<'a>,
    bytes: u64,
    next: u64,
}

impl OpenError {
    pub(super) fn io(path: &Path, error: &dyn fmt::Display) -> Self {
        Self::Failed(format!("cannot keep the cache in {}: {error}", path.display()))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(what) | Self::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for OpenError {}

/// What an error means for the file.
enum Fault {
    Busy,
    /// The file may be right, but cannot be had.
    Failed(String),
    /// It is no copy of a store, or not any more.
    Foreign(String),
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Busy,
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
                Self::Failed(error.to_string())
            }
            other => Self::Foreign(other.to_string()),
        }
    }
}

impl File {
    /// Opens the file, or makes one; one that is no copy of a store is moved aside. Gives all that is in it and still of use to
    /// `restore`.
    pub(super) fn open_or_replace(
        place: &Place,
        now: Moment,
        mut restore: impl FnMut(&Key, Entry) + Send,
    ) -> Result<Self, OpenError> {
        let path = &place.path;
        let what = match Self::open_apart(place, now, &mut restore) {
            Ok(file) => return Ok(file),
            Err(Fault::Busy) => {
                return Err(OpenError::Busy(format!(
                    "{} is another process's: each cache service needs a file of its own",
                    path.display()
                )));
            }
            Err(Fault::Failed(error)) => return Err(OpenError::io(path, &error)),
            Err(Fault::Foreign(what)) => what,
        };
        let to = aside(path);
        std::fs::rename(path, &to).map_err(|error| OpenError::io(path, &error))?;
        tracing::warn!(
            file = %path.display(), aside = %to.display(), reason = what,
            "the cache's file is damaged or something else; it was moved aside, and the cache begins empty"
        );
        Self::open_apart(place, now, &mut restore).map_err(|fault| match fault {
            Fault::Busy => OpenError::Busy(format!("{} is another process's", path.display())),
            Fault::Failed(what) | Fault::Foreign(what) => OpenError::io(path, &what),
        })
    }

    /// On a thread of its own, which may fail over what it reads.
    fn open_apart(place: &Place, now: Moment, restore: &mut (impl FnMut(&Key, Entry) + Send)) -> Result<Self, Fault> {
        std::thread::scope(|scope| scope.spawn(|| Self::open(place, now, restore)).join())
            .unwrap_or_else(|_| Err(Fault::Foreign("what stands in it cannot be read".to_owned())))
    }

    fn open(place: &Place, now: Moment, restore: &mut impl FnMut(&Key, Entry)) -> Result<Self, Fault> {
        // It may hold what not everybody on the machine may read.
        let mut options = OpenOptions::new();
        let made = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&place.path);
        drop(made.map_err(|error| Fault::from(redb::Error::Io(error)))?);
        // Checked whole, as all of it is read anyway: what was changed behind its back is found now and not later.
        let mut builder = Database::builder();
        builder.set_cache_size(PAGES).set_check_integrity_on_open(true);
        let db = builder.create(&place.path).map_err(redb::Error::from)?;
        let transaction = db.begin_write().map_err(redb::Error::from)?;
        let process = next_process(&transaction)?;
        let (bytes, next) = restored(&transaction, place, now, restore)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(Self { db, place: place.clone(), process, bytes, next })
    }

    /// Writes changes, all of them or none. When it returns, they are on the disk; it says how many answers had to make room.
    pub(super) fn write(&mut self, changes: &[Change], now: Moment) -> Result<u64, redb::Error> {
        let transaction = self.db.begin_write()?;
        let mut tables = Tables::of(&transaction, self.bytes, self.next)?;
        for change in changes {
            match change {
                Change::Put(put) => tables.put(put, self.process)?,
                Change::Forget(name) => tables.remove(u128::from_le_bytes(*name))?,
                Change::Purge(target, number, _) => tables.marks.add(target, (self.process, *number), now)?,
                Change::Settle(_) => {}
            }
        }
        let gone = tables.make_room(self.place.limit)?;
        let (bytes, next) = (tables.bytes, tables.next);
        drop(tables);
        transaction.commit()?;
        (self.bytes, self.next) = (bytes, next);
        Ok(gone)
    }

    /// Bytes of the answers in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file has become far longer than what is in it.
    pub(super) fn is_swollen(&self) -> bool {
        let most = self.place.limit.saturating_mul(SLACK).saturating_add(SLACK_BYTES);
        std::fs::metadata(&self.place.path).is_ok_and(|file| file.len() > most)
    }

    /// Marks of purges in it.
    #[cfg(test)]
    pub(super) fn marks(&self) -> u64 {
        let transaction = self.db.begin_write().unwrap();
        let marks = Marks::of(&transaction).unwrap().len();
        transaction.abort().unwrap();
        marks
    }
}

/// The number of this process; an error where the tables are not this program's.
fn next_process(transaction: &WriteTransaction) -> Result<u64, Fault> {
    let names: Vec<String> =
        transaction.list_tables().map_err(redb::Error::from)?.map(|table| table.name().to_owned()).collect();
    let mut about = transaction.open_table(META).map_err(redb::Error::from)?;
    let read = |name| Ok::<_, redb::Error>(about.get(name)?.map(|value| value.value()));
    let (format, process) = (read("format")?, read("process")?.unwrap_or(0) + 1);
    match (format, names.is_empty()) {
        (Some(FORMAT), _) | (None, true) => {}
        (Some(other), _) => {
            return Err(Fault::Foreign(format!("it is of format {other}, and this program's is {FORMAT}")));
        }
        (None, false) => return Err(Fault::Foreign("it is a database of another program's".to_owned())),
    }
    about.insert("format", FORMAT).map_err(redb::Error::from)?;
    about.insert("process", process).map_err(redb::Error::from)?;
    Ok(process)
}

/// Reads what is of use and removes the rest: what its bytes come to, and the next number in the order.
fn restored(
    transaction: &WriteTransaction,
    place: &Place,
    now: Moment,
    restore: &mut impl FnMut(&Key, Entry),
) -> Result<(u64, u64), redb::Error> {
    let mut tables = Tables::of(transaction, 0, 0)?;
    let longest = u64::try_from(place.max_ttl.as_millis()).unwrap_or(u64::MAX);
    let purged = tables.marks.read()?;
    let mut gone = Vec::new();
    for one in tables.order.iter()? {
        let (order, name) = one.map(|(order, name)| (order.value(), name.value()))?;
        tables.next = order + 1;
        let Some(head) = tables.heads.get(name)? else { continue };
        let read: Option<Head<'_>> = postcard::from_bytes(head.value()).ok();
        tables.bytes += read.as_ref().map_or(0, |head| head.bytes);
        match read.map(|head| useful(&tables.parts, name, &head, &purged, (now, longest))).transpose()?.flatten() {
            Some((key, entry)) => restore(&key, entry),
            None => gone.push(name),
        }
    }
    for name in gone {
        tables.remove(name)?;
    }
    tables.make_room(place.limit)?;
    tables.marks.forget_before(Moment::from_millis(now.millis().saturating_sub(longest)))?;
    Ok((tables.bytes, tables.next))
}

/// The answer, if it is of use still.
fn useful(
    parts: &Table<'_, (u128, u32), &'static [u8]>,
    name: u128,
    head: &Head<'_>,
    purged: &Purged,
    (now, longest): (Moment, u64),
) -> Result<Option<(Key, Entry)>, redb::Error> {
    // One that is younger than now was stored under another clock: nobody knows how old it is.
    let over = head.stored.saturating_add(head.keep_ms.min(longest)) <= now.millis();
    if over || head.stored > now.millis() {
        return Ok(None);
    }
    let mut body = BytesMut::with_capacity(usize::try_from(head.body).unwrap_or(0).min(PART));
    for part in parts.range((name, 0)..=(name, u32::MAX))? {
        body.extend_from_slice(part?.1.value());
    }
    if body.len() as u64 != head.body {
        return Ok(None);
    }
    let (record, stored) = (Bytes::copy_from_slice(head.record), Moment::from_millis(head.stored));
    let entry = record::decode(&record, body.freeze(), head.age_ms, stored);
    let entry = entry.filter(|entry| !purged.is_about(&head.url, &entry.terms().groups, (head.process, head.born)));
    Ok(entry.map(|entry| (Key::from(&head.url), entry)))
}

impl<'a> Tables<'a> {
    fn of(transaction: &'a WriteTransaction, bytes: u64, next: u64) -> Result<Self, redb::Error> {
        Ok(Self {
            heads: transaction.open_table(HEADS)?,
            parts: transaction.open_table(PARTS)?,
            order: transaction.open_table(ORDER)?,
            marks: Marks::of(transaction)?,
            bytes,
            next,
        })
    }

    fn put(&mut self, put: &Put, process: u64) -> Result<(), redb::Error> {
        let name = u128::from_le_bytes(put.name);
        self.remove(name)?;
        let order = self.next;
        self.next += 1;
        let head = Head {
            url: put.url.clone(),
            process,
            born: put.born,
            order,
            bytes: put.bytes() as u64 + OVERHEAD,
            stored: put.stored.millis(),
            age_ms: put.age_ms,
            keep_ms: put.keep_ms,
            body: put.body.len() as u64,
            record: &put.record,
        };
        // Only a type that serde cannot express fails here, and a test writes one of each.
        let written = postcard::to_allocvec(&head).unwrap_or_default();
        self.bytes += head.bytes;
        self.heads.insert(name, &*written)?;
        self.order.insert(order, name)?;
        for (number, part) in (0..).zip(put.body.chunks(PART)) {
            self.parts.insert((name, number), part)?;
        }
        Ok(())
    }

    fn remove(&mut self, name: u128) -> Result<(), redb::Error> {
        let Some(head) = self.heads.remove(name)?.map(|head| head.value().to_vec()) else { return Ok(()) };
        if let Ok(head) = postcard::from_bytes::<Head<'_>>(&head) {
            self.bytes = self.bytes.saturating_sub(head.bytes);
            self.order.remove(head.order)?;
        }
        self.parts.retain_in((name, 0)..=(name, u32::MAX), |_, _| false)?;
        Ok(())
    }

    /// Takes out what came first until no more than `limit` bytes are there; how many answers that are.
    fn make_room(&mut self, limit: u64) -> Result<u64, redb::Error> {
        let mut gone = 0;
        while self.bytes > limit {
            let Some(name) = self.order.pop_first()?.map(|(_, name)| name.value()) else { break };
            self.remove(name)?;
            gone += 1;
        }
        Ok(gone)
    }
}
