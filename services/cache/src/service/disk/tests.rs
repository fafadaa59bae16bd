use std::fs;

use super::*;
use crate::freshness::Times;
use crate::heads::{get, response};
use crate::policy::Policy;
use crate::record;
use crate::storing::judge;

const NOW: Moment = Moment::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const MIB: usize = 1 << 20;

pub(super) fn place(folder: &tempfile::TempDir, limit: usize) -> Place {
    Place { path: folder.path().join("cache"), limit: limit as u64, max_ttl: HOUR }
}

fn url(target: &str) -> Url {
    Url { https: false, host: "a.example".to_owned(), target: target.to_owned() }
}

fn entry(body: &[u8]) -> Entry {
    let fields = [("Cache-Control", "max-age=600"), ("Cache-Groups", "\"g\""), ("ETag", "\"a\"")];
    let (request, head) = (get("/", &[]), response(200, &fields));
    let terms = judge(&request, &head, Times { requested: NOW, received: NOW }, &Policy::new()).unwrap();
    Entry::new(terms, &head, Bytes::copy_from_slice(body))
}

fn name(target: &str) -> LeaseName {
    crate::service::convert::url_name(&url(target), b"")
}

pub(super) fn put(target: &str, born: u64, body: &[u8]) -> Put {
    let entry = entry(body);
    Put {
        name: name(target),
        url: url(target),
        born,
        stored: NOW,
        age_ms: 5000,
        keep_ms: 600_000,
        record: record::encode(&entry),
        body: entry.body().clone(),
    }
}

/// The file and what was in it: URLs and bodies, the oldest first.
fn opened(place: &Place, now: Moment) -> (File, Vec<(String, Entry)>) {
    let mut found = Vec::new();
    let file = File::open_or_replace(place, now, |key, entry| found.push((key.target().to_owned(), entry))).unwrap();
    (file, found)
}

pub(super) fn targets(place: &Place, now: Moment) -> Vec<String> {
    opened(place, now).1.into_iter().map(|(target, _)| target).collect()
}

fn written(place: &Place, changes: Vec<Change>) {
    opened(place, NOW).0.write(&changes, NOW).unwrap();
}

pub(super) fn of(put: Put) -> Change {
    Change::Put(Box::new(put))
}

pub(super) fn purge(target: Target, number: u64) -> Change {
    Change::Purge(target, number, oneshot::channel().0)
}

#[test]
fn what_was_stored_is_there_again_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let long: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8).collect();
    written(&place, vec![of(put("/a", 0, b"short")), of(put("/long", 0, &long)), of(put("/empty", 0, b""))]);
    let later = NOW.after(Duration::from_secs(60));
    let (_, found) = opened(&place, later);
    let bodies: Vec<_> = found.iter().map(|(target, entry)| (target.as_str(), entry.body().len())).collect();
    assert_eq!(bodies, [("/a", 5), ("/long", MIB), ("/empty", 0)]);
    assert!(found[1].1.body() == &long[..]);
    let (one, before) = (&found[0].1, entry(b"short"));
    assert_eq!(one.head().as_bytes(), before.head().as_bytes());
    assert_eq!(one.terms().groups, before.terms().groups);
    // It has aged on the disk as it would have in memory.
    assert_eq!((one.age(later), one.fresh_for(later)), (65_000, 535_000));
}

#[test]
fn the_last_version_counts() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let (long, short) = (vec![b'x'; 300_000], b"short");
    written(&place, vec![of(put("/a", 0, &long)), of(put("/b", 0, b"b")), of(put("/a", 0, short))]);
    let (mut file, found) = opened(&place, NOW);
    let bodies: Vec<_> = found.iter().map(|(target, entry)| (target.as_str(), entry.body().as_ref())).collect();
    assert_eq!(bodies, [("/b", &b"b"[..]), ("/a", &short[..])]);
    assert!(file.bytes() < 2000, "the version before takes no room: {}", file.bytes());
    file.write(&[Change::Forget(name("/a"))], NOW).unwrap();
    drop(file);
    assert_eq!(targets(&place, NOW), ["/b"]);
}

#[test]
fn nothing_that_was_purged_comes_back() {
    let about_a = [
        Target::All,
        Target::Host("a.example".to_owned()),
        Target::Url(url("/a")),
        Target::Prefix(url("/")),
        Target::Group("g".to_owned(), None),
        Target::Group("g".to_owned(), Some(url("/elsewhere"))),
    ];
    for target in about_a {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, 16 * MIB);
        // What was fetched before the purge may reach the disk before it or after it; what was fetched after it stays.
        let changes = vec![
            of(put("/a", 4, b"")),
            purge(target.clone(), 5),
            of(put("/a", 4, b"")),
            of(Put { name: name("/late"), ..put("/a", 5, b"") }),
        ];
        written(&place, changes);
        assert_eq!(targets(&place, NOW), ["/a"], "{target:?}: the one that is younger");
        // The next process counts its purges from nothing; they are later all the same.
        written(&place, vec![purge(target.clone(), 1)]);
        assert_eq!(targets(&place, NOW), [""; 0], "{target:?}");
    }
    let about_others = [
        Target::Nothing,
        Target::Host("b.example".to_owned()),
        Target::Url(url("/b")),
        Target::Url(Url { https: true, ..url("/a") }),
        Target::Prefix(url("/b")),
        Target::Group("h".to_owned(), None),
        Target::Group("g".to_owned(), Some(Url { host: "b.example".to_owned(), ..url("/") })),
    ];
    for target in about_others {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, 16 * MIB);
        written(&place, vec![of(put("/a", 4, b"")), purge(target.clone(), 5)]);
        assert_eq!(targets(&place, NOW), ["/a"], "{target:?}");
    }
}

/// Purges that are ordered at once come in any order.
#[test]
fn an_earlier_purge_that_comes_later_takes_nothing_back() {
    for target in [Target::Url(url("/a")), Target::Prefix(url("/a"))] {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, 16 * MIB);
        written(&place, vec![of(put("/a", 5, b"")), purge(target.clone(), 6), purge(target.clone(), 5)]);
        assert_eq!(targets(&place, NOW), [""; 0], "{target:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let mut changes = vec![of(put("/a", 5, b"")), purge(Target::Prefix(url("/a")), 6)];
    changes.extend((0..1024).map(|n| purge(Target::Prefix(url(&format!("/other/{n}"))), 1)));
    written(&place, changes);
    assert_eq!(targets(&place, NOW), [""; 0], "too many: the last of them counts");
}

#[test]
fn purges_are_remembered_while_they_may_be_about_something_and_no_more_than_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let mut changes = vec![of(put("/a", 0, b""))];
    changes.extend((0..1024).map(|n| purge(Target::Prefix(url(&format!("/other/{n}"))), 1)));
    changes.push(purge(Target::Url(url("/b")), 1));
    written(&place, changes);
    let (mut file, found) = opened(&place, NOW);
    assert_eq!((file.marks(), found.len()), (1025, 1));
    file.write(&[purge(Target::Prefix(url("/one/more")), 2)], NOW).unwrap();
    assert_eq!(file.marks(), 1);
    drop(file);
    assert_eq!(targets(&place, NOW), [""; 0], "too many: everything counts as purged");
    let (file, _) = opened(&place, NOW.after(HOUR + Duration::from_secs(1)));
    assert_eq!(file.marks(), 0, "there is nothing any more that is older");
}

#[test]
fn what_is_of_no_use_any_more_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let eternal = Put { keep_ms: u64::MAX, ..put("/eternal", 0, b"") };
    written(&place, vec![of(put("/a", 0, b"")), of(eternal)]);
    let before = Moment::from_millis(NOW.millis() - 1);
    assert_eq!(targets(&place, before), [""; 0], "a clock that was set back says nothing about its age");
    written(&place, vec![of(put("/a", 0, b"")), of(Put { keep_ms: u64::MAX, ..put("/eternal", 0, b"") })]);
    assert_eq!(targets(&place, NOW.after(Duration::from_secs(600))), ["/eternal"]);
    let (file, found) = opened(&place, NOW.after(HOUR));
    assert_eq!((found.len(), file.bytes()), (0, 0), "nothing is kept for longer than max_ttl");
}

#[test]
fn it_is_bounded_and_what_came_first_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 2 * MIB);
    let (mut file, _) = opened(&place, NOW);
    let body = vec![b'x'; 200_000];
    let mut gone = 0;
    for round in 0..25 {
        let changes: Vec<_> = (0..10).map(|n| of(put(&format!("/{round}/{n}"), 0, &body))).collect();
        gone += file.write(&changes, NOW).unwrap();
        assert!(file.bytes() <= 2 * MIB as u64, "{}", file.bytes());
    }
    drop(file);
    let found = targets(&place, NOW);
    assert!((9..=10).contains(&found.len()) && found.iter().all(|target| target.starts_with("/24/")), "{found:?}");
    assert_eq!(gone + found.len() as u64, 250, "what had to make room is told");
    let len = fs::metadata(&place.path).unwrap().len();
    assert!(len < 20 * MIB as u64, "50 MiB went through it: {len}");
}

#[test]
fn what_is_no_copy_of_a_store_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    written(&place, vec![of(put("/a", 0, &vec![b'x'; 400_000]))]);
    let right = fs::read(&place.path).unwrap();
    let mut flipped = right.clone();
    // A byte of the body, which stands somewhere in the file.
    let at = right.windows(64).position(|bytes| bytes == [b'x'; 64]).unwrap();
    flipped[at + 1000] ^= 1;
    let cut = right[..right.len() / 2].to_vec();
    for (what, bytes) in
        [("text", b"not a database".to_vec()), ("noise", vec![7; 100_000]), ("flipped", flipped), ("cut", cut)]
    {
        fs::write(&place.path, &bytes).unwrap();
        let (mut file, found) = opened(&place, NOW);
        assert_eq!(found.len(), 0, "{what}");
        assert_eq!(fs::read(aside(&place.path)).unwrap().len(), bytes.len(), "{what}");
        file.write(&[of(put("/b", 0, b""))], NOW).unwrap();
        drop(file);
        assert_eq!(targets(&place, NOW), ["/b"], "{what}: a new one takes its place");
    }
    // A database, but another program's.
    fs::remove_file(&place.path).unwrap();
    let table: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("theirs");
    let db = redb::Database::create(&place.path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(db);
    assert_eq!(targets(&place, NOW), [""; 0]);
    let theirs = redb::Database::open(aside(&place.path)).unwrap();
    let read = redb::ReadableDatabase::begin_read(&theirs).unwrap();
    assert!(read.open_table(table).is_ok(), "nothing was written into it");
}

#[test]
fn a_file_that_cannot_be_had_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mine = place(&folder, 16 * MIB);
    let _open = opened(&mine, NOW);
    let busy = File::open_or_replace(&mine, NOW, |_, _| {}).unwrap_err();
    assert!(matches!(&busy, OpenError::Busy(what) if what.contains("a file of its own")), "{busy}");
    assert!(!aside(&mine.path).exists(), "what somebody uses is not moved");
    let nowhere = Place { path: folder.path().join("no/such/folder"), ..mine };
    let failed = File::open_or_replace(&nowhere, NOW, |_, _| {}).unwrap_err();
    assert!(matches!(&failed, OpenError::Failed(what) if what.contains("no/such/folder")), "{failed}");
}

#[tokio::test]
async fn whoever_waits_for_a_change_hears_that_it_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, 16 * MIB);
    let disk = Disk::open(place.clone(), NOW, |_, _| {}).unwrap();
    assert!(disk.put(put("/a", 0, b"a")) && disk.put(put("/b", 0, b"b")));
    assert!(disk.purge(&Target::Url(url("/a")), 1).await);
    assert!(disk.put(put("/c", 1, b"c")));
    // Unlike settling, however busy the disk is.
    assert!(disk.purge(&Target::Nothing, 1).await);
    disk.settle().await;
    // Like a kill: what is on the disk now is all there will be.
    fs::copy(&place.path, folder.path().join("copy")).unwrap();
    assert_eq!(targets(&Place { path: folder.path().join("copy"), ..place }, NOW), ["/b", "/c"]);
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(place(&folder, 256 * MIB), NOW, |_, _| {}).unwrap();
    let body = vec![b'x'; 8 * MIB];
    let puts: Vec<_> = (0..20).map(|n| put(&format!("/{n}"), 0, &body)).collect();
    let queued = puts.into_iter().filter_map(|put| disk.put(put).then_some(())).count();
    assert!((7..20).contains(&queued), "{queued} of 8 MiB each");
    assert!(disk.purge(&Target::Nothing, 0).await, "all before it is written");
    assert!(disk.put(put("/later", 0, &body)), "there is room again");
    let small = Disk::open(Place { path: folder.path().join("small"), ..place(&folder, MIB) }, NOW, |_, _| {}).unwrap();
    assert!(!small.put(put("/a", 0, &body)), "it would have to go at once");
}
