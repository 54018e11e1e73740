//! What must survive wharfd: definitions, what was intended, and how runs ended, in one SQLite file.
//!
//! A commit is on the disk when it returns (WAL, synchronous=FULL), so an intent can then be acted on and an answer be
//! given; unless nobody could miss it after a power cut ([`Durable::AfterCrash`]), when it only survives a crash of
//! wharfd. The whole is small and written by the driver alone; nobody else opens it.

use anyhow::{Context, bail};
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, ErrorCode, params};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use wharf_oci::failpoint;

/// Counted up when the tables change; an older file is migrated, a newer one refused.
const SCHEMA: i64 = 1;
/// What is kept in both files for a full disk, in bytes.
const RESERVE: u32 = 2 << 20;
/// The log is written back when it has so many pages of 4 KiB: before it would have to grow beyond the reserve.
const LOG_PAGES: u32 = 400;
/// With less room on the disk than this, in bytes, nothing new is begun.
const ROOM: u64 = 1 << 20;

/// The open file.
#[derive(Debug)]
pub struct Store {
    database: Connection,
    directory: OwnedFd,
    durable: Durable,
}

/// What a commit has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durable {
    /// The end of this process. After a power cut the last commits may be missing, in order and whole.
    AfterCrash,
    /// A power cut as well.
    AfterPowerCut,
}

/// A container as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// What was asked for: the daemon's own JSON, see `definition.rs`.
    pub definition: String,
    /// What the supervisor wants to be given back: its own JSON, see `saved.rs`.
    pub saved: String,
    /// The first of its ids on the host, if it has ids of its own.
    pub first_id: Option<u32>,
}

impl Store {
    /// Open or make the file. The directory exists and is ours alone. In `containers` every container that was ever
    /// started has its files.
    pub fn open(path: &Path, containers: &Path) -> anyhow::Result<Self> {
        let opened = Connection::open(path)
            .with_context(|| format!("opening {}", path.display()))
            .and_then(|database| Self::prepare(database, containers));
        opened.map_err(|error| {
            let advice = advice(path, containers, &error);
            error.context(advice)
        })
    }

    fn prepare(database: Connection, containers: &Path) -> anyhow::Result<Self> {
        // One process, one connection: holding the lock spares its system calls and keeps a second wharfd out.
        database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > SCHEMA {
            bail!(
                "written by a later wharfd (schema {version}, known up to {SCHEMA}): install that version again"
            );
        }
        // Of a few pages. What it does not find is damage within a row, which costs that container only.
        let found: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(anyhow::Error::new(Damage(found)));
        }
        if version < 1 {
            // Everything that is there would be nobody's, and be removed.
            let mut left = std::fs::read_dir(containers)?;
            if left.next().is_some() {
                return Err(anyhow::Error::new(Damage(
                    "it is empty or new, but there are containers".to_owned(),
                )));
            }
        }
        // The first that writes: a file that cannot be used stays as it is.
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.pragma_update(None, "foreign_keys", true)?;
        if version < 1 {
            database.execute_batch(
                "BEGIN;
                 CREATE TABLE container (
                     id TEXT PRIMARY KEY,
                     name TEXT NOT NULL UNIQUE,
                     definition TEXT NOT NULL,
                     saved TEXT NOT NULL,
                     first_id INTEGER UNIQUE
                 ) STRICT, WITHOUT ROWID;
                 PRAGMA user_version = 1;
                 COMMIT;",
            )?;
        }
        database.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        if let Err(error) = reserve(&database) {
            tracing::warn!(%error, "no room is kept for a full disk, ignoring");
        }
        let directory = std::fs::File::open(containers).context("opening the directory of containers")?;
        Ok(Self { database, directory: directory.into(), durable: Durable::AfterPowerCut })
    }

    /// Is there room on the disk for something new? What is there already has the reserve. What the file system keeps for
    /// the system's own processes is not room.
    pub fn room(&self) -> anyhow::Result<()> {
        let disk = rustix::fs::fstatvfs(&self.directory).context("looking for room on the disk")?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < ROOM {
            bail!(
                "the disk of the state directory is full ({} kB free): make room, then try again",
                free / 1000
            );
        }
        if disk.f_files > 0 && disk.f_favail < 16 {
            bail!("the disk of the state directory has no space for more files: remove some, then try again");
        }
        Ok(())
    }

    /// Every container.
    pub fn containers(&self) -> anyhow::Result<Vec<Record>> {
        let mut query =
            self.database.prepare("SELECT id, name, definition, saved, first_id FROM container")?;
        let rows = query.query_map([], Record::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The ranges of ids that belong to containers, by their first id.
    pub fn ranges(&self) -> anyhow::Result<BTreeSet<u32>> {
        let mut query = self.database.prepare("SELECT first_id FROM container WHERE first_id IS NOT NULL")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Write several changes at once: all of them, or none.
    pub fn commit(&mut self, changes: &[Change], durable: Durable) -> anyhow::Result<()> {
        if self.durable != durable {
            let level = match durable {
                Durable::AfterCrash => "NORMAL",
                Durable::AfterPowerCut => "FULL",
            };
            self.database.pragma_update(None, "synchronous", level)?;
            self.durable = durable;
        }
        let transaction = self.database.transaction()?;
        for change in changes {
            match change {
                Change::Put(record) => {
                    transaction.prepare_cached(
                        "INSERT INTO container (id, name, definition, saved, first_id) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT (id) DO UPDATE SET name = ?2, definition = ?3, saved = ?4, first_id = ?5",
                    )?
                    .execute(params![
                        record.id,
                        record.name,
                        record.definition,
                        record.saved,
                        record.first_id
                    ])?;
                }
                Change::Saved { id, saved } => {
                    let rows = transaction
                        .prepare_cached("UPDATE container SET saved = ?2 WHERE id = ?1")?
                        .execute(params![id, saved])?;
                    if rows != 1 {
                        bail!("no container {id} to save");
                    }
                }
                Change::Definition { id, definition } => {
                    let rows = transaction
                        .prepare_cached("UPDATE container SET definition = ?2 WHERE id = ?1")?
                        .execute(params![id, definition])?;
                    if rows != 1 {
                        bail!("no container {id} to define anew");
                    }
                }
                Change::Delete { id } => {
                    transaction
                        .prepare_cached("DELETE FROM container WHERE id = ?1")?
                        .execute(params![id])?;
                }
            }
        }
        failpoint::reach("store.committing");
        transaction.commit()?;
        failpoint::reach("store.committed");
        Ok(())
    }
}

/// Have both files hold room, so that what becomes of the containers that are there can be written to a disk that is
/// full: the log is written from its beginning again after this, and the table's pages are free.
fn reserve(database: &Connection) -> rusqlite::Result<()> {
    database.execute_batch(&format!(
        "DROP TABLE IF EXISTS reserve;
         CREATE TABLE reserve (bytes BLOB);
         INSERT INTO reserve VALUES (zeroblob({RESERVE}));
         DROP TABLE reserve;"
    ))?;
    database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    // All of it went through memory.
    database.execute_batch("PRAGMA shrink_memory")
}

impl Record {
    /// From columns in the order in which every query here names them.
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, 0)?,
            name: text(row, 1)?,
            definition: text(row, 2)?,
            saved: text(row, 3)?,
            first_id: row.get(4)?,
        })
    }
}

/// Bytes that are no text are for the reader of the text to complain about: they are one container's damage.
fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Err(FromSqlError::InvalidType.into()),
    }
}

/// What is wrong with the file as a whole.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Damage(String);

/// What somebody should do about a file that cannot be used.
fn advice(path: &Path, containers: &Path, error: &anyhow::Error) -> String {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<rusqlite::Error>()?.sqlite_error_code());
    let (path, containers) = (path.display(), containers.display());
    match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("{path} is in use: is another wharfd running with this --state-dir?")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damaged(&path, &containers),
        _ if error.downcast_ref::<Damage>().is_some() => damaged(&path, &containers),
        _ => format!("the state in {path} cannot be used"),
    }
}

fn damaged(path: &impl std::fmt::Display, containers: &impl std::fmt::Display) -> String {
    format!(
        "{path} is damaged; running containers go on, and nothing was changed. Put a backup in its place, or what \
         `sqlite3 {path} .recover` saves of it; or move it and {containers} away to begin with nothing, which ends and \
         removes all containers"
    )
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new container, or everything of a known one.
    Put(Record),
    /// Only what the supervisor wants to be given back.
    Saved {
        /// Whose.
        id: String,
        /// Its JSON.
        saved: String,
    },
    /// Only the definition of a known container.
    Definition {
        /// Whose.
        id: String,
        /// Its JSON.
        definition: String,
    },
    /// It is gone with everything that belonged to it.
    Delete {
        /// Whose.
        id: String,
    },
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What the first release wrote, read by the store of today.
    pub fn of_the_first_release() -> Vec<Record> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let old = Connection::open(&path).expect("made");
        old.execute_batch(include_str!("../../tests/fixtures/0.1/wharf.sql")).expect("the old state");
        drop(old);
        open(&path).expect("opened").containers().expect("read")
    }

    /// Written again, all that was in it is still there, beside what has come later: an earlier release can read it.
    pub fn assert_contains(new: &serde_json::Value, old: &serde_json::Value) {
        match (new, old) {
            (serde_json::Value::Object(new), serde_json::Value::Object(old)) => {
                for (key, old) in old {
                    assert_contains(new.get(key).unwrap_or_else(|| panic!("no {key} any more")), old);
                }
            }
            (new, old) => assert_eq!(new, old),
        }
    }

    fn record(id: &str, first_id: u32) -> Record {
        Record {
            id: id.to_owned(),
            name: format!("name-{id}"),
            definition: "{}".to_owned(),
            saved: "{}".to_owned(),
            first_id: Some(first_id),
        }
    }

    /// With no container's files.
    fn open(path: &Path) -> anyhow::Result<Store> {
        let containers = path.with_file_name("containers");
        std::fs::create_dir_all(&containers).expect("a directory");
        Store::open(path, &containers)
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let mut store = open(&path).expect("opened");
        store
            .commit(
                &[Change::Put(record("a", 65_536)), Change::Put(record("b", 131_072))],
                Durable::AfterPowerCut,
            )
            .expect("committed");
        store
            .commit(
                &[Change::Saved { id: "a".into(), saved: "{1}".into() }, Change::Delete { id: "b".into() }],
                Durable::AfterCrash,
            )
            .expect("committed");
        drop(store);

        let store = open(&path).expect("opened again");
        let expected = Record { saved: "{1}".into(), ..record("a", 65_536) };
        assert_eq!(store.containers().expect("read"), vec![expected]);
        assert_eq!(store.ranges().expect("read"), BTreeSet::from([65_536]));
    }

    #[test]
    fn what_the_first_release_left_is_read() {
        let all = of_the_first_release();
        assert_eq!(all.len(), 12);
        assert_eq!(all.iter().filter(|record| record.first_id.is_none()).count(), 1, "hostns");
    }

    #[test]
    fn one_bad_change_undoes_all_of_its_commit() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(&dir.path().join("state.db")).expect("opened");
        let same_range = [Change::Put(record("a", 65_536)), Change::Put(record("b", 65_536))];
        store.commit(&same_range, Durable::AfterPowerCut).expect_err("a range belongs to one container");
        assert_eq!(store.containers().expect("read"), vec![]);
    }

    #[test]
    fn file_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        Connection::open(&path).expect("made").pragma_update(None, "user_version", 99).expect("set");
        let error = format!("{:#}", open(&path).expect_err("from the future"));
        assert!(error.contains("later wharfd"), "{error}");
    }
    #[test]
    fn file_that_is_no_database_is_left_alone_and_the_way_on_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        for content in
            [b"this is no database, and has never been one of any kind".repeat(100), vec![0xff; 8192]]
        {
            std::fs::write(&path, &content).expect("written");
            let error = format!("{:#}", open(&path).expect_err("garbage"));
            assert!(error.contains("is damaged") && error.contains(".recover"), "{error}");
            assert_eq!(std::fs::read(&path).expect("read"), content);
        }
    }

    #[test]
    fn file_with_a_broken_page_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let mut store = open(&path).expect("opened");
        let many = |number: u32| Change::Put(record(&format!("{number:064}"), 65_536 * number));
        let changes: Vec<Change> = (1..200).map(many).collect();
        store.commit(&changes, Durable::AfterPowerCut).expect("committed");
        drop(store);

        let whole = std::fs::read(&path).expect("read");
        let mut broken = whole.clone();
        broken[4096..8192].fill(0x5a);
        for content in [broken, whole[..whole.len() / 2].to_vec()] {
            std::fs::write(&path, &content).expect("written");
            let error = format!("{:#}", open(&path).expect_err("a broken page"));
            assert!(error.contains("is damaged"), "{error}");
        }
    }

    #[test]
    fn new_file_beside_containers_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        std::fs::create_dir_all(dir.path().join("containers/abc")).expect("a container's files");
        for content in [None, Some("")] {
            if let Some(content) = content {
                std::fs::write(&path, content).expect("written");
            }
            let error = format!("{:#}", open(&path).expect_err("its containers are unknown"));
            assert!(error.contains("there are containers"), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_spoil_one_row_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let mut store = open(&path).expect("opened");
        let both = [Change::Put(record("a", 65_536)), Change::Put(record("b", 131_072))];
        store.commit(&both, Durable::AfterPowerCut).expect("committed");
        let spoil = "UPDATE container SET saved = CAST(x'ff7bfe' AS TEXT) WHERE id = 'a'";
        store.database.execute_batch(spoil).expect("spoilt");
        let all = store.containers().expect("read");
        assert_eq!(all[1], record("b", 131_072));
        assert!(all[0].saved.contains('\u{fffd}'), "{all:?}");
    }
}
