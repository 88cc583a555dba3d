//! The store is let die at every step of every operation, and opened again.

use std::cell::Cell;

use serde_json::json;

use super::*;
use crate::Class;
use crate::facts::Facts;

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("specula-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn facts() -> Facts {
    Facts {
        kinds: vec![crate::Kind::Sampling],
        description: None,
        interfaces: Vec::new(),
        code_bytes: 1,
        compile_ms: 1,
        costs: Vec::new(),
        stamp: None,
    }
}

/// An operation on a store.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Put(&'static str, &'static str, &'static [u8]),
    Show(&'static str, &'static str),
    DropOldest(&'static str, &'static str),
    Delete(&'static str, &'static str),
}

fn perform(store: &mut Store, deed: Deed) -> Result<(), StoreError> {
    match deed {
        Deed::Put(owner, name, bytes) => {
            let staged = store.stage(bytes)?;
            let (digest, bytes) = (staged.digest().to_owned(), staged.bytes());
            let version = |number| Version {
                number,
                digest,
                bytes,
                uploaded_s: 7,
                class: Class::Standard,
                config: json!({}),
                facts: facts(),
            };
            store.keep((owner, name, Visibility::Private), staged, version).map(|_| ())
        }
        Deed::Show(owner, name) => store.show(owner, name, Visibility::Shared).map(|_| ()),
        Deed::DropOldest(owner, name) => {
            let oldest = store.record(owner, name).map(|record| record.versions[0].number);
            store.drop_versions((owner, name), |version| Some(version.number) == oldest)
        }
        Deed::Delete(owner, name) => store.drop_versions((owner, name), |_| true),
    }
}

/// What a store holds: every record, and the content of every version.
fn content(store: &Store) -> Vec<(Record, Vec<Vec<u8>>)> {
    let files =
        |record: &Record| record.versions.iter().map(|version| store.read(&version.digest).expect("kept")).collect();
    store.records().map(|record| (record.clone(), files(record))).collect()
}

/// Nothing is there that no record points at.
fn nothing_is_left_over(store: &Store, folder: &Path) {
    let count = |part: &str| entries(&folder.join(part)).expect("readable").len();
    let digests: BTreeSet<&String> = store.records().flat_map(|r| r.versions.iter().map(|v| &v.digest)).collect();
    assert_eq!((count("staging"), count("blobs")), (0, digests.len()));
}

fn open(folder: &Path) -> Store {
    let (store, unreadable) = Store::open(folder, Quota::default(), Disk::default()).expect("opens");
    assert_eq!(unreadable, []);
    store
}

const DEEDS: [Deed; 9] = [
    Deed::Put("ann", "a", b"first"),
    Deed::Put("ann", "a", b"second"),
    Deed::Put("bob", "a", b"second"),
    Deed::Show("bob", "a"),
    Deed::Put("ann", "b", b"third"),
    Deed::DropOldest("ann", "a"),
    Deed::Put("ann", "a", b"first"),
    Deed::Delete("bob", "a"),
    Deed::Delete("ann", "a"),
];

#[test]
fn dying_at_any_step_loses_nothing_acknowledged_and_leaves_nothing_half() {
    let mut died = 0;
    for last in 0..DEEDS.len() {
        for steps in 0.. {
            let folder = Folder::new("death");
            let mut store = open(&folder.0);
            for deed in &DEEDS[..last] {
                perform(&mut store, *deed).expect("done");
            }
            let before = content(&store);
            store.disk.steps_left = Some(Cell::new(steps));
            let done = perform(&mut store, DEEDS[last]).is_ok();
            let unused = store.disk.steps_left.take().is_some_and(|left| left.get() > 0);
            // What the process had in memory is gone, and so are the files that its end would have tidied up.
            fs::write(folder.0.join("staging/half"), b"ha").expect("written");
            drop(store);
            let mut store = open(&folder.0);
            nothing_is_left_over(&store, &folder.0);
            let found = content(&store);
            if found == before {
                assert!(!done, "{:?} was acknowledged and is lost after {steps} steps", DEEDS[last]);
                perform(&mut store, DEEDS[last]).expect("it can be done after all");
            }
            let mut whole = open_at(&Folder::new("whole"), last + 1);
            assert_eq!(content(&store), whole.1.take().expect("content"), "{:?} after {steps} steps", DEEDS[last]);
            died += usize::from(!done);
            if done && unused {
                break;
            }
        }
    }
    assert!(died > 60, "{died} deaths");
}

/// Records of what was listed, each with its versions' bytes.
type Listed = Vec<(Record, Vec<Vec<u8>>)>;

/// The content after the first deeds, without any death.
fn open_at(folder: &Folder, deeds: usize) -> (Store, Option<Listed>) {
    let mut store = open(&folder.0);
    for deed in &DEEDS[..deeds] {
        perform(&mut store, *deed).expect("done");
    }
    let content = content(&store);
    (store, Some(content))
}

#[test]
fn quotas_are_each_owner_s_and_named() {
    let folder = Folder::new("quota");
    let quota = Quota { versions: 2, bytes: 10 };
    let mut store = Store::open(&folder.0, quota, Disk::default()).expect("opens").0;
    perform(&mut store, Deed::Put("ann", "a", b"1234")).expect("room");
    let error = perform(&mut store, Deed::Put("ann", "b", b"1234567")).expect_err("too many bytes");
    assert_eq!(error.to_string(), "ann would have 11 bytes of plugins here, allowed are 10; delete some first");
    perform(&mut store, Deed::Put("ann", "a", b"123456")).expect("room");
    let error = perform(&mut store, Deed::Put("ann", "b", b"")).expect_err("too many versions");
    assert!(error.to_string().contains("3 versions of plugins here, allowed are 2"), "{error}");
    perform(&mut store, Deed::Put("bob", "b", b"1234567")).expect("another's room");
    perform(&mut store, Deed::DropOldest("ann", "a")).expect("there");
    perform(&mut store, Deed::Put("ann", "b", b"12")).expect("room again");
}

#[test]
fn versions_are_numbered_once() {
    let folder = Folder::new("numbers");
    let mut store = open(&folder.0);
    for bytes in [b"1", b"2", b"3"] {
        perform(&mut store, Deed::Put("ann", "a", bytes)).expect("done");
    }
    store.drop_versions(("ann", "a"), |version| version.number == 3).expect("there");
    perform(&mut store, Deed::Put("ann", "a", b"4")).expect("done");
    let numbers: Vec<u32> = store.record("ann", "a").expect("there").versions.iter().map(|v| v.number).collect();
    assert_eq!(numbers, [1, 2, 4]);
    assert!(store.drop_versions(("ann", "z"), |_| true).is_err());
}

#[test]
fn a_folder_serves_one_process_and_damage_is_told() {
    let folder = Folder::new("damage");
    let mut store = open(&folder.0);
    perform(&mut store, Deed::Put("ann", "a", b"first")).expect("done");
    perform(&mut store, Deed::Put("ann", "b", b"second")).expect("done");
    assert!(matches!(Store::open(&folder.0, Quota::default(), Disk::default()), Err(StoreError::InUse(_))));
    let digest = store.record("ann", "a").expect("there").versions[0].digest.clone();
    let blob = store.blob(&digest);
    drop(store);
    fs::write(&blob, b"fIrst").expect("written");
    fs::write(folder.0.join("names/ann/b.json"), b"{").expect("written");
    let (store, unreadable) = Store::open(&folder.0, Quota::default(), Disk::default()).expect("opens");
    assert!(matches!(store.read(&digest), Err(StoreError::Damaged(path)) if path == blob));
    assert_eq!(unreadable.len(), 1);
    assert_eq!(entries(&folder.0.join("blobs")).expect("readable").len(), 2, "it may be the one that b meant");
}
